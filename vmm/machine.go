package vmm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fineline-vmm/fineline/coherence/track"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/kvm"
)

// Status is where a machine is in its life.
type Status int

const (
	Created Status = iota // built, no guest in it yet
	Paused                // a guest is in it, no vCPU runs
	Running
	Stopped // for good; Outcome says why
)

func (s Status) String() string {
	return [...]string{"created", "paused", "running", "stopped"}[s]
}

// OutcomeKind is how a run ended.
type OutcomeKind int

const (
	EndedByUser OutcomeKind = iota // Stop was called
	EndedByPowerOff
	EndedByReset // only with Config.NoReboot
	EndedByDebugExit
	EndedByMigration // the guest runs in another process now
	EndedByError
)

// Outcome is how a run ended.
type Outcome struct {
	Kind OutcomeKind
	// DebugExitCode is what the guest wrote to port 0xf4 (EndedByDebugExit).
	DebugExitCode uint32
	Err           error // EndedByError
	// SerialErr says, however the run ended, that serial output was lost.
	SerialErr error
}

// ErrStopped is returned by what needs a machine that has not ended.
var ErrStopped = errors.New("the machine has stopped")

// flushTimeout bounds the wait for a console that does not take the last bytes.
const flushTimeout = 2 * time.Second

// event is a reason for the supervisor to act.
type event struct {
	next next
	code uint32
	err  error
}

// Machine is one guest: its memory, vCPUs and devices.
type Machine struct {
	cfg   Config
	sys   *kvm.System
	vm    *kvm.VM
	mem   *memory.Guest
	dirty memory.DirtySource
	slots *slots
	lines *track.Engine
	homed atomic.Pointer[homedRAM] // nil: missing memory comes by the page
	board *board
	cpuid []kvm.CPUIDEntry
	wish  wish
	// powerOn is the state before the first instruction, for a reset. It is saved when
	// the machine is built, since at a destination there is no time for it later.
	powerOn *state
	// pinned is what a machine that arrived may load at a reset; nil: whatever is there.
	pinned *bootDigests

	mu       sync.Mutex // before vcpu.mu, before a device's mu
	status   Status
	cpus     []*vcpu
	throttle *throttle // nil: the guest runs all the time
	outcome  Outcome

	eventMu sync.Mutex
	events  []event
	notify  chan struct{} // capacity 1: there are events
	done    chan struct{} // closed when the status becomes Stopped
	quit    chan struct{} // closed by Close: the supervisor ends
	super   sync.WaitGroup
}

// New builds a machine without a guest in it: memory, in-kernel devices, our
// devices and parked vCPUs. Close frees it.
func New(cfg Config) (*Machine, error) {
	var err error
	if cfg.Boot, err = cfg.Boot.absolute(); err != nil {
		return nil, err
	}
	return build(cfg, freshMemory, nil)
}

// build is New on the memory that ram makes, with what a migrated guest already saw, or nil for a machine made
// from this host and cfg.CPUModel.
func build(cfg Config, ram func(Config) (*memory.Guest, error), seen *description) (_ *Machine, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m := &Machine{
		cfg:    cfg,
		notify: make(chan struct{}, 1),
		done:   make(chan struct{}),
		quit:   make(chan struct{}),
	}
	defer func() {
		if err != nil {
			_ = m.free()
		}
	}()
	if m.sys, err = kvm.Open(); err != nil {
		return nil, err
	}
	if m.mem, err = ram(cfg); err != nil {
		return nil, err
	}
	if m.vm, err = m.sys.CreateVM(kvm.VMOptions{DirtyRingBytesPerVCPU: cfg.dirtyRingBytes()}); err != nil {
		return nil, err
	}
	if err = m.vm.MapMemory(m.mem); err != nil {
		return nil, err
	}
	m.mem.WatchWaits(m.wakeWaiters)
	m.dirty = dirtySource{m.vm.DirtySource(m.mem), m}
	m.slots = &slots{m: m}
	m.lines = newLines(m)
	if m.board, err = newBoard(m.vm, m.mem, m.lines, cfg.SerialOut, &m.wish); err != nil {
		return nil, err
	}
	if seen != nil {
		m.cpuid, m.pinned = seen.CPUID, &seen.Digests
	} else {
		supported, err := m.sys.SupportedCPUID()
		if err != nil {
			return nil, err
		}
		m.cpuid = cfg.CPUModel.filter(supported)
	}
	if err = m.createVCPUs(); err != nil {
		return nil, err
	}
	if seen != nil {
		if err = m.setTSCFrequency(seen.TSCKHz); err != nil {
			return nil, err
		}
	}
	if m.powerOn, err = m.save(); err != nil {
		return nil, err
	}
	m.super.Add(1)
	go m.supervise()
	return m, nil
}

func (m *Machine) createVCPUs() error {
	for id := range m.cfg.CPUs {
		p := &peripherals{pio: m.board.pio, mmio: m.board.mmio, wish: &m.wish, cpu: id, mem: m.mem, ram: machineRAM{m}}
		c, err := newVCPU(m.vm, id, p, m.post)
		if err != nil {
			return err
		}
		m.cpus = append(m.cpus, c)
		entries := perCPU(m.cpuid, id, m.cfg.CPUs)
		if err := c.do(func(v *kvm.VCPU) error { return v.SetCPUID(entries) }); err != nil {
			return fmt.Errorf("vCPU %d: %w", id, err)
		}
	}
	return nil
}

// setTSCFrequency gives every vCPU the frequency that the guest knows.
func (m *Machine) setTSCFrequency(khz uint64) error {
	for _, c := range m.cpus {
		if err := c.do(func(v *kvm.VCPU) error { return v.SetTSCFrequency(khz) }); err != nil {
			return fmt.Errorf("%w: %w", ErrIncompatible, err)
		}
	}
	return nil
}

// Memory is the guest's RAM. It stays valid until Close.
func (m *Machine) Memory() *memory.Guest { return m.mem }

// DirtySource reports the stores of guest code; memory.Guest.Track joins it with
// the VMM's own.
func (m *Machine) DirtySource() memory.DirtySource { return m.dirty }

// Config is what the machine was built from.
func (m *Machine) Config() Config { return m.cfg }

// Status is where the machine is in its life.
func (m *Machine) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status
}

// Done is closed when the machine has stopped; Outcome then says why.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Outcome says how the run ended. It is meaningful after Done is closed.
func (m *Machine) Outcome() Outcome {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.outcome
}

// Feed gives bytes to the guest's serial port, waiting while its FIFO is full.
func (m *Machine) Feed(ctx context.Context, p []byte) error {
	_, err := m.board.serial.FeedContext(ctx, p)
	return err
}

// Resume lets the vCPUs run: the first start, or after Pause.
func (m *Machine) Resume() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.resume()
}

// resume is Resume. Preconditions: m.mu held.
func (m *Machine) resume() error {
	switch m.status {
	case Created:
		return errors.New("the machine has no guest yet: boot or restore one first")
	case Stopped:
		return ErrStopped
	case Paused:
		if err := m.lines.Resume(); err != nil {
			return err
		}
		m.status = Running
		if h := m.homed.Load(); h != nil {
			h.begin()
		}
		return m.release()
	}
	return nil
}

// Pause parks every vCPU between two instructions and holds the devices still.
// What the guest asked for before it was paused (a reset, a power-off) has
// happened when Pause returns. On a paused machine it does nothing, except that it parks what can be parked now.
//
// A vCPU that waits for missing memory (memory.Demand) in the kernel, where it may not be interruptible, is left waiting: until
// Resume its page does not arrive, so it completes no instruction, and Pause never waits for a page. Save then fails. Once nothing is
// missing any more, another Pause has such a vCPU finish its instruction and parks it.
func (m *Machine) Pause() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pause()
}

// pause is Pause. Preconditions: m.mu held.
func (m *Machine) pause() error {
	if m.status == Running {
		if err := m.hold(); err != nil {
			return err
		}
		m.status = Paused
	}
	m.settle()
	if m.status == Stopped {
		return ErrStopped
	}
	return m.finishWaits()
}

// finishWaits parks the vCPUs that a pause has left waiting for pages that are there now: kicked first, they leave
// the guest once their instruction can end. Preconditions: m.mu held, paused.
func (m *Machine) finishWaits() error {
	if m.mem.Absent() > 0 || m.allParked() == nil {
		return nil
	}
	if err := m.mem.Release(); err != nil {
		return err
	}
	for _, c := range m.cpus {
		c.await(parked)
	}
	return nil
}

// allParked kicks the vCPUs that wait for pages, and says whether all are parked then, or wraps memory.ErrMissing. Preconditions:
// none is wanted running, or all are held.
func (m *Machine) allParked() error {
	var errs []error
	for _, c := range m.cpus { // each, also after an error: each is kicked
		errs = append(errs, c.awaitParked())
	}
	return errors.Join(errs...)
}

func (m *Machine) wakeWaiters() {
	for _, c := range m.cpus {
		c.wakeWaiters()
	}
}

// Stop ends the run. It is safe at any time and from any goroutine.
func (m *Machine) Stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.finish(Outcome{Kind: EndedByUser})
}

// HandOver ends the run because another process owns the guest now. Serial
// output that was not written yet has moved with the state and is dropped here.
// Preconditions: the machine is paused.
func (m *Machine) HandOver() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.status == Paused {
		m.end(Outcome{Kind: EndedByMigration})
	}
}

// Close stops the machine and frees everything. Nothing of it may be used after.
func (m *Machine) Close() error {
	m.Stop()
	close(m.quit)
	m.super.Wait()
	return m.free()
}

// free undoes build in reverse; any part may be missing.
func (m *Machine) free() error {
	var errs []error
	for _, c := range m.cpus {
		c.setWant(gone)
	}
	if m.mem != nil {
		errs = append(errs, m.mem.Abandon()) // for a vCPU that waits for a page
	}
	for _, c := range m.cpus {
		c.await(gone)
	}
	if h := m.homed.Load(); h != nil {
		errs = append(errs, h.close())
	}
	if m.board != nil {
		m.board.close()
	}
	if m.lines != nil {
		errs = append(errs, m.lines.Close())
	}
	if m.vm != nil {
		errs = append(errs, m.vm.Close())
	}
	if m.mem != nil {
		errs = append(errs, m.mem.Close())
	}
	if m.sys != nil {
		errs = append(errs, m.sys.Close())
	}
	return errors.Join(errs...)
}

// hold stills the devices, then parks all vCPUs: a console that blocks stops nobody, and
// the guest's last instruction is the last thing that happens. What the guest has written up to
// now is compared while it still runs. After an error all run
// on. Preconditions: m.mu held.
func (m *Machine) hold() error {
	m.mem.Hold() // before a device's command may wait for a vCPU that waits for a page
	m.wakeWaiters()
	if err := m.board.pause(); err != nil {
		return errors.Join(err, m.mem.Release())
	}
	m.lines.Look()
	m.park()
	return nil
}

// park has no vCPU complete an instruction until release: it is parked, or it waits for a page that is held back.
func (m *Machine) park() {
	m.mem.Hold()
	for _, c := range m.cpus {
		c.setWant(parked)
	}
	for _, c := range m.cpus {
		c.awaitStill()
	}
}

// release is the opposite of hold. Preconditions: m.mu held.
func (m *Machine) release() error {
	m.board.resume()
	for _, c := range m.cpus {
		c.setWant(running)
	}
	return m.mem.Release()
}

// post queues an event for the supervisor. It never blocks: a vCPU calls it.
func (m *Machine) post(e event) {
	m.eventMu.Lock()
	m.events = append(m.events, e)
	m.eventMu.Unlock()
	select {
	case m.notify <- struct{}{}:
	default: // it is already told
	}
}

func (m *Machine) supervise() {
	defer m.super.Done()
	for {
		select {
		case <-m.notify:
		case <-m.quit:
			return
		}
		m.mu.Lock()
		m.settle()
		m.mu.Unlock()
	}
}

// dropEvents forgets what a guest asked for that is no more. Preconditions: m.mu held,
// all vCPUs parked, so that none is about to post.
func (m *Machine) dropEvents() {
	m.eventMu.Lock()
	m.events = nil
	m.eventMu.Unlock()
	m.wish.clear()
}

// settle acts on all events that were posted. Preconditions: m.mu held.
func (m *Machine) settle() {
	for {
		m.eventMu.Lock()
		if len(m.events) == 0 {
			m.eventMu.Unlock()
			return
		}
		e := m.events[0]
		m.events = m.events[1:]
		m.eventMu.Unlock()
		if m.status != Stopped {
			m.act(e)
		}
	}
}

// act does what one event asks. Preconditions: m.mu held.
func (m *Machine) act(e event) {
	switch {
	case e.err != nil:
		m.finish(Outcome{Kind: EndedByError, Err: e.err})
	case e.next == powerOff:
		m.finish(Outcome{Kind: EndedByPowerOff})
	case e.next == debugEnd:
		m.finish(Outcome{Kind: EndedByDebugExit, DebugExitCode: e.code})
	case e.next == reset && m.cfg.NoReboot:
		m.finish(Outcome{Kind: EndedByReset})
	case e.next == reset:
		if err := m.resetGuest(); err != nil {
			m.finish(Outcome{Kind: EndedByError, Err: fmt.Errorf("the guest asked for a reset: %w", err)})
		}
	}
}

// finish ends the run once; later reasons are ignored. Preconditions: m.mu held.
func (m *Machine) finish(o Outcome) {
	if m.status == Stopped {
		return
	}
	m.park()
	m.board.serial.Resume() // a paused console still owes its last bytes
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	if err := m.board.serial.Flush(ctx); err != nil {
		m.board.serial.Abandon()
	}
	m.end(o)
}

// end publishes the outcome. Preconditions: m.mu held, all vCPUs parked.
func (m *Machine) end(o Outcome) {
	o.SerialErr = m.board.serial.LostOutput()
	m.throttle.end()
	m.throttle = nil
	m.status = Stopped
	m.outcome = o
	close(m.done)
}
