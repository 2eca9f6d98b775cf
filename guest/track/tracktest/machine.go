package tracktest

import (
	"sync"

	"github.com/fineline-vmm/fineline/guest/track/abi"
	"github.com/fineline-vmm/fineline/guest/track/dma"
)

const (
	pageBytes = dma.PageBytes
	lineBytes = 64
)

// Machine is physical memory and the device. Its methods are for any number of goroutines.
type Machine struct {
	MaxContexts, MaxRanges uint32
	// Before runs before each command, without a lock: a test moves pages and writes in it.
	Before func(abi.Op)
	// Spoil changes a completion before it is put; false leaves it out.
	Spoil func(*abi.Completion) bool

	mu       sync.Mutex
	frames   map[uint64]*[pageBytes]byte
	next     uint64 // frame that was never given out
	reg32    map[int]uint32
	reg64    map[int]uint64
	contexts map[uint32]*context
	ids      uint32
	taken    uint32 // commands
	put      uint32 // completions
	commands []abi.Op
}

// NewMachine returns a machine with a device that is off.
func NewMachine() *Machine {
	return &Machine{
		MaxContexts: 16, MaxRanges: 1 << 16, next: 1000,
		frames: map[uint64]*[pageBytes]byte{}, reg32: map[int]uint32{}, reg64: map[int]uint64{}, contexts: map[uint32]*context{},
	}
}

// Frame gives a new zeroed frame.
func (m *Machine) Frame() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next++
	m.frames[m.next] = new([pageBytes]byte)
	return m.next
}

// DMA gives pages for a driver.
func (m *Machine) DMA(n int) []dma.Page {
	var pages []dma.Page
	for range n {
		frame := m.Frame()
		pages = append(pages, dma.Page{Bytes: m.frames[frame][:], Physical: frame * pageBytes})
	}
	return pages
}

// Read copies bytes of a frame.
func (m *Machine) Read(frame uint64, offset int, p []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(p, m.frames[frame][offset:])
}

// Store writes bytes of a frame, whoever does it: the device sees it.
func (m *Machine) Store(frame uint64, offset int, p []byte) {
	if len(p) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.frames[frame][offset:], p)
	for _, c := range m.contexts {
		c.stored(frame, linesOf(offset, len(p)))
	}
}

func linesOf(offset, bytes int) uint64 {
	first, last := offset/lineBytes, (offset+bytes-1)/lineBytes
	return ^uint64(0) >> (63 - (last - first)) << first
}

// Contexts is how many exist, and Registered how many frames of all of them.
func (m *Machine) Contexts() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.contexts)
}

// Registered is how many frames are registered in all contexts together.
func (m *Machine) Registered() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, c := range m.contexts {
		n += len(c.lines)
	}
	return n
}

// Enabled says whether the rings are on.
func (m *Machine) Enabled() bool { return m.Load32(abi.RegStatus)&abi.StatusEnabled != 0 }

// Load32 is the driver's access to BAR 0.
func (m *Machine) Load32(offset int) uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch offset {
	case abi.RegID:
		return abi.Magic
	case abi.RegVersion:
		return abi.Version
	case abi.RegFeatures:
		return abi.FeatureDiff | abi.FeatureStores
	case abi.RegMaxContexts:
		return m.MaxContexts
	case abi.RegMaxRanges:
		return m.MaxRanges
	case abi.RegCmdTaken:
		return m.taken
	case abi.RegCplPut:
		return m.put
	}
	return m.reg32[offset]
}

// Store64 is the driver's access to BAR 0.
func (m *Machine) Store64(offset int, v uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reg64[offset] = v
}

// Store32 is the driver's access to BAR 0.
func (m *Machine) Store32(offset int, v uint32) {
	m.mu.Lock()
	m.reg32[offset] = v
	switch offset {
	case abi.RegControl:
		m.control(v)
	case abi.RegDoorbell:
		m.mu.Unlock()
		m.doorbell(v)
		return
	}
	m.mu.Unlock()
}

func (m *Machine) control(v uint32) {
	m.reg32[abi.RegStatus] = 0
	if v&abi.ControlEnable == 0 {
		clear(m.contexts)
		m.taken, m.put = 0, 0
		return
	}
	m.reg32[abi.RegStatus] = abi.StatusEnabled
	for _, ring := range []int{abi.RegCmdRing, abi.RegCplRing} {
		if address := m.reg64[ring]; address%lineBytes != 0 || m.frames[address/pageBytes] == nil {
			m.ringError(abi.RingBadAddress)
		}
	}
	for _, entries := range []int{abi.RegCmdEntries, abi.RegCplEntries} {
		if n := m.reg32[entries]; n < 2 || n > 4096 || n&(n-1) != 0 {
			m.ringError(abi.RingBadEntries)
		}
	}
}

func (m *Machine) ringError(reason uint32) {
	m.reg32[abi.RegStatus] |= abi.StatusError
	m.reg32[abi.RegError] = reason
}

func (m *Machine) doorbell(put uint32) {
	for {
		c, ok := m.command(put)
		if !ok {
			return
		}
		if m.Before != nil {
			m.Before(c.Op)
		}
		m.complete(c)
	}
}

// command takes the next command.
func (m *Machine) command(put uint32) (abi.Command, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reg32[abi.RegStatus] != abi.StatusEnabled || m.taken == put {
		return abi.Command{}, false
	}
	if put-m.taken > m.reg32[abi.RegCmdEntries] {
		m.ringError(abi.RingBadIndex)
		return abi.Command{}, false
	}
	c := abi.GetCommand(m.at(m.reg64[abi.RegCmdRing] + uint64(m.taken%m.reg32[abi.RegCmdEntries]*abi.CommandBytes)))
	m.taken++
	m.commands = append(m.commands, c.Op)
	return c, true
}

// complete does c and puts its completion.
func (m *Machine) complete(c abi.Command) {
	m.mu.Lock()
	defer m.mu.Unlock()
	cpl := m.do(c)
	cpl.Cookie, cpl.Sequence = c.Cookie, m.put+1
	if m.Spoil != nil && !m.Spoil(&cpl) {
		return
	}
	entries := m.reg32[abi.RegCplEntries]
	if m.put-m.reg32[abi.RegCplTaken] >= entries {
		m.ringError(abi.RingBadIndex)
		return
	}
	cpl.Put(m.at(m.reg64[abi.RegCplRing] + uint64(m.put%entries*abi.CompletionBytes)))
	m.put++
}

// at is physical memory from address to the page's end, nil where there is none.
func (m *Machine) at(address uint64) []byte {
	page := m.frames[address/pageBytes]
	if page == nil {
		return nil
	}
	return page[address%pageBytes:]
}

// Commands returns what the device was told since the last call.
func (m *Machine) Commands() []abi.Op {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.commands
	m.commands = nil
	return all
}
