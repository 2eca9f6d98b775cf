package driver

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/fineline-vmm/fineline/guest/track/abi"
	"github.com/fineline-vmm/fineline/guest/track/dma"
)

// Registers are those of BAR 0. Offsets are aligned to the access.
type Registers interface {
	Load32(offset int) uint32
	Store32(offset int, v uint32)
	Store64(offset int, v uint64)
}

// DMAPages is how many pages a driver needs.
const DMAPages = 3

const (
	cmdEntries = dma.PageBytes / abi.CommandBytes
	cplEntries = dma.PageBytes / abi.CompletionBytes
	// listRanges and bufferRecords fit into the one page of data.
	listRanges    = dma.PageBytes / abi.RangeBytes
	bufferRecords = dma.PageBytes / abi.RecordBytes
)

// deadline is how long the device may take for one command. The longest is a harvest that compares all of
// a large guest's memory: seconds under emulation.
const deadline = 30 * time.Second

// Status is why the device refused a command; errors.Is finds it in what the methods return.
type Status uint32

// What a caller may act on.
const (
	ErrState    Status = abi.ErrState
	ErrAddress  Status = abi.ErrAddress
	ErrNoSpace  Status = abi.ErrNoSpace
	ErrBadFlags Status = abi.ErrFlags
)

func (s Status) Error() string {
	switch s {
	case abi.ErrOpcode:
		return "unknown command"
	case abi.ErrFlags:
		return "unknown flag, or a mode that this machine cannot track in"
	case abi.ErrContext:
		return "no such context"
	case abi.ErrState:
		return "the context is not in the state for this"
	case abi.ErrAddress:
		return "misaligned, or not RAM"
	case abi.ErrCount:
		return "a count out of range"
	case abi.ErrNotRegistered:
		return "the range is not registered"
	case abi.ErrNoSpace:
		return "the device has no room for more contexts or ranges"
	case abi.ErrHost:
		return "the host could not do it; the VMM's log says why"
	}
	return fmt.Sprintf("status %d", uint32(s))
}

var (
	// ErrDead: the device gave no answer or a wrong one, and is not asked again.
	ErrDead = errors.New("the device does not answer")
	// ErrNotOurs: registers that are not those of this device in this version.
	ErrNotOurs = errors.New("not a device that this program knows")
	// ErrClosed: the driver was closed.
	ErrClosed = errors.New("the device is closed")
)

// Driver is the owner of the device's rings. Its methods are for any number of goroutines.
type Driver struct {
	regs Registers

	mu             sync.Mutex
	cmd, cpl, data dma.Page
	put            uint32 // commands ever put, and so the completions expected
	err            error  // why there will be no further command
}

// Open resets the device and gives it rings in the pages, DMAPages of them, which must stay until Close has returned nil.
func Open(regs Registers, pages []dma.Page) (*Driver, error) {
	if id, version := regs.Load32(abi.RegID), regs.Load32(abi.RegVersion); id != abi.Magic || version != abi.Version {
		return nil, fmt.Errorf("%w: id %#x, version %d, want %#x and %d", ErrNotOurs, id, version, uint32(abi.Magic), abi.Version)
	}
	if len(pages) != DMAPages {
		return nil, fmt.Errorf("%d pages of DMA memory, want %d", len(pages), DMAPages)
	}
	d := &Driver{regs: regs, cmd: pages[0], cpl: pages[1], data: pages[2]}
	if err := d.reset(); err != nil { // an earlier owner may have been killed
		return nil, err
	}
	clear(d.cpl.Bytes)
	regs.Store64(abi.RegCmdRing, d.cmd.Physical)
	regs.Store64(abi.RegCplRing, d.cpl.Physical)
	regs.Store32(abi.RegCmdEntries, cmdEntries)
	regs.Store32(abi.RegCplEntries, cplEntries)
	regs.Store32(abi.RegControl, abi.ControlEnable)
	// Rings that are refused show as an error beside it.
	if err := d.poll(func() bool { return regs.Load32(abi.RegStatus) == abi.StatusEnabled }); err != nil {
		return nil, errors.Join(fmt.Errorf("enable: %w", err), d.reset())
	}
	return d, nil
}

// Limits returns how many contexts and ranges the device holds.
func (d *Driver) Limits() (contexts, ranges uint32) {
	return d.regs.Load32(abi.RegMaxContexts), d.regs.Load32(abi.RegMaxRanges)
}

// Close resets the device: its contexts are gone. When it fails the device may still write to the rings'
// pages: keep them.
func (d *Driver) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if errors.Is(d.err, ErrClosed) {
		return nil
	}
	if err := d.reset(); err != nil {
		return err
	}
	d.err = ErrClosed
	return nil
}

func (d *Driver) reset() error {
	d.regs.Store32(abi.RegControl, 0)
	for began := time.Now(); d.regs.Load32(abi.RegStatus)&abi.StatusEnabled != 0; time.Sleep(time.Millisecond) {
		if time.Since(began) > deadline {
			return fmt.Errorf("reset: %w", ErrDead)
		}
	}
	return nil
}

// do puts c into the ring and waits for its completion. d.mu is held.
func (d *Driver) do(c abi.Command) (abi.Completion, error) {
	if d.err != nil {
		return abi.Completion{}, d.err
	}
	cpl, err := d.exchange(c)
	if err != nil {
		d.err = fmt.Errorf("%w: %w", ErrDead, err)
		return abi.Completion{}, d.err
	}
	if cpl.Status != abi.OK {
		return cpl, Status(cpl.Status)
	}
	return cpl, nil
}

// exchange is do without judgement of the status; its errors are the device's end.
func (d *Driver) exchange(c abi.Command) (abi.Completion, error) {
	c.Cookie = uint64(d.put)
	c.Put(d.cmd.Bytes[d.put%cmdEntries*abi.CommandBytes:])
	at := int(d.put % cplEntries * abi.CompletionBytes)
	d.put++
	d.regs.Store32(abi.RegDoorbell, d.put)
	if err := d.poll(func() bool { return d.cpl.Load32(at+abi.SequenceOffset) == d.put }); err != nil {
		return abi.Completion{}, fmt.Errorf("command %d: %w", c.Op, err)
	}
	cpl := abi.GetCompletion(d.cpl.Bytes[at:])
	d.regs.Store32(abi.RegCplTaken, d.put)
	if cpl.Cookie != c.Cookie {
		return abi.Completion{}, fmt.Errorf("command %d: the completion is of another command", c.Op)
	}
	return cpl, nil
}

const (
	looks  = 1000
	minNap = 20 * time.Microsecond
	maxNap = 500 * time.Microsecond
)

// poll waits until done.
func (d *Driver) poll(done func() bool) error {
	for range looks {
		if done() {
			return nil
		}
		runtime.Gosched()
	}
	began := time.Now()
	for nap := minNap; ; nap = min(2*nap, maxNap) {
		status := d.regs.Load32(abi.RegStatus) // before the look: an answer that came with it counts
		if done() {
			return nil
		}
		if status&abi.StatusError != 0 {
			return fmt.Errorf("ring error %d", d.regs.Load32(abi.RegError))
		}
		if time.Since(began) > deadline {
			return fmt.Errorf("no answer in %v", deadline)
		}
		time.Sleep(nap)
	}
}
