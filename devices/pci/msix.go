package pci

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync"

	"github.com/fineline-vmm/fineline/devices"
)

// The MSI-X capability and table, PCI Local Bus 3.0 §6.8.2.
const (
	capMSIX         = 0x11
	msixMaxVectors  = 2048
	msixEntryBytes  = 16
	msixControlReg  = 2 // of the capability
	msixEnable      = 1 << 15
	msixMaskAll     = 1 << 14
	msixMinPBA      = 2048
	entryDataWord   = 2
	entryControl    = 3
	entryMasked     = 1
	pbaBitsPerEntry = 64
)

// MSIX is a function's message interrupts: the table and the pending bits, in a BAR
// of their own. Methods may be called from any goroutine.
type MSIX struct {
	signal func(addr uint64, data uint32)
	pba    uint64 // offset of the pending bits in the BAR

	mu      sync.Mutex
	enabled bool        // by message control
	blocked bool        // the function is masked or not bus master
	entries [][4]uint32 // address low, high, data, vector control
	pending []uint64
	metrics MSIXMetrics
}

// MSIXMetrics counts messages and what was wrong.
type MSIXMetrics struct {
	Sent        uint64 `json:"sent"`
	Dropped     uint64 `json:"dropped"`      // raised while MSI-X was off
	BadVectors  uint64 `json:"bad_vectors"`  // beyond the table
	OddAccesses uint64 `json:"odd_accesses"` // not an aligned dword or quadword
}

// AddMSIX gives the function an MSI-X capability with a table of vectors (1 to 2048)
// in a 32-bit BAR of its own. signal sends a message: it is called with a lock held,
// so that no message follows the guest's masking, and must not call back.
func (c *Config) AddMSIX(barIndex, vectors int, signal func(addr uint64, data uint32)) (*MSIX, error) {
	if vectors < 1 || vectors > msixMaxVectors {
		return nil, fmt.Errorf("%w: %d vectors, must be 1 to %d", ErrBadMSIX, vectors, msixMaxVectors)
	}
	if c.msix != nil {
		return nil, fmt.Errorf("%w: the function has it already", ErrBadMSIX)
	}
	m := &MSIX{signal: signal, entries: make([][4]uint32, vectors), pending: make([]uint64, (vectors+63)/64)}
	m.reset()
	m.pba = max(msixMinPBA, uint64(1)<<bits.Len(uint(vectors*msixEntryBytes-1)))
	if err := c.AddBAR(barIndex, BAR{Kind: Memory32, SizeBytes: 2 * m.pba, Device: msixBAR{m}}); err != nil {
		return nil, err
	}
	body := make([]byte, 10)
	binary.LittleEndian.PutUint16(body[0:], uint16(vectors-1))
	binary.LittleEndian.PutUint32(body[2:], uint32(barIndex)) // table at 0 of the BAR
	binary.LittleEndian.PutUint32(body[6:], uint32(m.pba)|uint32(barIndex))
	mask := make([]byte, len(body))
	binary.LittleEndian.PutUint16(mask, msixEnable|msixMaskAll)
	offset, err := c.AddCapability(capMSIX, body, mask)
	if err != nil {
		return nil, err
	}
	c.msix, c.msixCap = m, offset
	return m, nil
}

// updateMSIX tells the MSI-X part what the registers say; callers hold c.mu.
func (c *Config) updateMSIX() {
	if c.msix == nil {
		return
	}
	control := binary.LittleEndian.Uint16(c.regs[c.msixCap+msixControlReg:])
	// A message is a memory write by the function: none without bus master.
	c.msix.configure(control&msixEnable != 0, control&msixMaskAll != 0 || !c.busMaster())
}

func (m *MSIX) configure(enabled, blocked bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.enabled, m.blocked = enabled, blocked
	m.sendPending()
}

// reset masks all vectors, as the table is after reset; callers hold no m.mu.
func (m *MSIX) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for v := range m.entries {
		m.entries[v] = [4]uint32{entryControl: entryMasked}
	}
	clear(m.pending)
}

// Enabled reports whether the guest uses MSI-X.
func (m *MSIX) Enabled() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.enabled
}

// Metrics returns a copy of the counters.
func (m *MSIX) Metrics() MSIXMetrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.metrics
}

// Signal raises a vector: its message is sent now or stays pending while masked.
func (m *MSIX) Signal(vector int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case vector < 0 || vector >= len(m.entries):
		m.metrics.BadVectors++
	case !m.enabled:
		m.metrics.Dropped++
	case m.held(vector):
		m.pending[vector/pbaBitsPerEntry] |= 1 << (vector % pbaBitsPerEntry)
	default:
		m.send(vector)
	}
}

// held reports whether a message of the vector must wait; callers hold mu.
func (m *MSIX) held(vector int) bool {
	return !m.enabled || m.blocked || m.entries[vector][entryControl]&entryMasked != 0
}

func (m *MSIX) send(vector int) {
	e := &m.entries[vector]
	m.metrics.Sent++
	m.signal(uint64(e[1])<<32|uint64(e[0]), e[entryDataWord])
}

// sendPending sends what waited and may go now; callers hold mu.
func (m *MSIX) sendPending() {
	if !m.enabled || m.blocked {
		return
	}
	for i, word := range m.pending {
		for ; word != 0; word &= word - 1 {
			bit := bits.TrailingZeros64(word)
			vector := i*pbaBitsPerEntry + bit
			if !m.held(vector) {
				m.pending[i] &^= 1 << bit
				m.send(vector)
			}
		}
	}
}

// msixBAR is the BAR: the table at 0, the pending bits at pba, zeros elsewhere.
type msixBAR struct{ m *MSIX }

var _ devices.Device = msixBAR{}

func (b msixBAR) Read(off uint64, p []byte) {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	if b.m.odd(off, p) {
		ones(p)
		return
	}
	for i := 0; i < len(p); i += 4 {
		binary.LittleEndian.PutUint32(p[i:], b.m.word(off+uint64(i)))
	}
}

func (b msixBAR) Write(off uint64, p []byte) {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	if b.m.odd(off, p) {
		return
	}
	for i := 0; i < len(p); i += 4 {
		b.m.setWord(off+uint64(i), binary.LittleEndian.Uint32(p[i:]))
	}
	b.m.sendPending()
}

// odd counts accesses other than the two that §6.8.2 allows.
func (m *MSIX) odd(off uint64, p []byte) bool {
	if (len(p) == 4 || len(p) == 8) && off%uint64(len(p)) == 0 {
		return false
	}
	m.metrics.OddAccesses++
	return true
}

func (m *MSIX) word(off uint64) uint32 {
	if off >= m.pba {
		word := (off - m.pba) / 4
		if word/2 >= uint64(len(m.pending)) {
			return 0
		}
		return uint32(m.pending[word/2] >> (32 * (word % 2)))
	}
	if vector := off / msixEntryBytes; vector < uint64(len(m.entries)) {
		return m.entries[vector][off%msixEntryBytes/4]
	}
	return 0
}

// setWord writes the table; the pending bits are for reading.
func (m *MSIX) setWord(off uint64, v uint32) {
	vector := off / msixEntryBytes
	if off >= m.pba || vector >= uint64(len(m.entries)) {
		return
	}
	word := off % msixEntryBytes / 4
	switch word {
	case 0:
		v &^= 3 // messages are dwords
	case entryControl:
		v &= entryMasked
	}
	m.entries[vector][word] = v
}
