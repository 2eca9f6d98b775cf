package migration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/memory"
)

// world watches how many processes run the guest: the ownership law, as seen from outside.
type world struct {
	mu        sync.Mutex
	runner    string
	violation string
	tell      func(event string) // if set, hears "run" and "stop"
	changed   chan struct{}      // closed at the next change; nil if nobody awaits one
}

func (w *world) enter(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.runner != "" && w.violation == "" {
		w.violation = fmt.Sprintf("%s runs while %s runs", name, w.runner)
	}
	w.runner = name
	w.change("run")
}

func (w *world) leave(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.runner == name {
		w.runner = ""
	}
	w.change("stop")
}

// await waits until one of those wanted runs the guest, as a side holds its guest in the background.
func (w *world) await(wanted []string) {
	guard := time.After(hangGuard / 4)
	for {
		w.mu.Lock()
		if w.changed == nil {
			w.changed = make(chan struct{})
		}
		runner, changed := w.runner, w.changed
		w.mu.Unlock()
		if slices.Contains(wanted, runner) {
			return
		}
		select {
		case <-changed:
		case <-guard:
			return
		}
	}
}

// change tells who awaits. Precondition: mu.
func (w *world) change(what string) {
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
	if w.tell != nil {
		w.tell(what)
	}
}

// who returns the process that runs the guest, and what broke the law.
func (w *world) who() (string, string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.runner, w.violation
}

var errDead = errors.New("this process is dead")

// guestState is the fake machine's state besides its RAM.
type guestState struct {
	Steps uint64 `json:"steps"`
}

// machine is a fake machine, both Source and Target. Its guest is a goroutine that writes counters into
// a working set and now and then clears a page.
type machine struct {
	name  string
	world *world
	mem   *memory.Guest
	pages uint64 // working set
	shape []byte

	// Hooks of tests; called outside of mu.
	onPrepare, onPause, onResume, onSave, onRestore, onRun, onCheckpoint func() error

	mu       sync.Mutex
	dead     bool
	running  bool
	owned    bool // this process may run the guest
	released bool
	built    bool
	pauses   int
	state    guestState
	lent     []*memory.Guest // the source's memory, in a local hand-over
	stop     chan struct{}
	stopped  chan struct{}
}

func testRegions(pages uint64) []memory.Region {
	// Two regions with a gap, as a machine of more than 3 GiB has.
	half := pages / 2
	return []memory.Region{
		{Base: 0, SizeBytes: half * memory.PageSize},
		{Base: 1 << 32, SizeBytes: (pages - half) * memory.PageSize},
	}
}

func newMachine(t testing.TB, w *world, name string, pages uint64) *machine {
	t.Helper()
	mem, err := memory.New(testRegions(pages), memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mem.Close(); err != nil {
			t.Error(err)
		}
	})
	return machineOf(mem, w, name)
}

func machineOf(mem *memory.Guest, w *world, name string) *machine {
	return &machine{name: name, world: w, mem: mem, pages: min(mem.Pages()/4, 32), shape: []byte(`{"shape":1}`)}
}

// boot fills the RAM with a pattern and starts the guest.
func (m *machine) boot() error {
	if err := m.fill(); err != nil {
		return err
	}
	m.owned = true
	m.start()
	return nil
}

func (m *machine) fill() error {
	i := 0
	for _, r := range m.mem.Regions() {
		for off := uint64(0); off < r.SizeBytes; off += memory.PageSize {
			i++
			if i%3 == 0 {
				continue // never touched
			}
			if err := m.mem.StoreUint64(r.Base+memory.GPA(off), uint64(i)*0x9e3779b97f4a7c15); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *machine) start() {
	m.world.enter(m.name)
	m.running = true
	m.spin()
}

// spin has the guest's goroutine begin.
func (m *machine) spin() {
	m.stop, m.stopped = make(chan struct{}), make(chan struct{})
	go m.guest(m.stop, m.stopped)
}

func (m *machine) guest(stop, stopped chan struct{}) {
	defer close(stopped)
	// In bursts: many of these run beside each other in the tests.
	tick := time.NewTicker(50 * time.Microsecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			for range 64 {
				m.step()
			}
		}
	}
}

// step is one guest instruction. Only the guest's goroutine, or a test that has paused it, calls it.
func (m *machine) step() {
	step := m.state.Steps + 1
	gpa := memory.GPA(step % m.pages * memory.PageSize)
	var err error
	if step%7 == 0 {
		err = m.mem.WriteAt(gpa, make([]byte, memory.PageSize))
	} else {
		err = m.mem.StoreUint64(gpa+memory.GPA(step%512*8), step)
	}
	if err == nil { // else the memory is gone, and the guest gets no further
		m.state.Steps = step
	}
}

// halt stops the guest. Precondition: mu.
func (m *machine) halt() {
	if m.hush() {
		m.running = false
		m.world.leave(m.name)
	}
}

// hush stops the guest's goroutine, and leaves the guest as it is to the world. Precondition: mu.
func (m *machine) hush() (wasRunning bool) {
	if !m.running {
		return false
	}
	m.tellStop()
	<-m.stopped
	return true
}

// tellStop makes the guest's goroutine end after its step. Precondition: mu.
func (m *machine) tellStop() {
	select {
	case <-m.stop:
	default:
		close(m.stop)
	}
}

// die is the end of the process, whatever it is doing.
func (m *machine) die() {
	_ = m.mem.Abandon() // a guest that waits for a page dies waiting
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running {
		// Its guest may wait for a page that this very goroutine was about to store, so nobody waits for it.
		m.tellStop()
		m.running = false
		m.world.leave(m.name)
	}
	m.dead, m.owned = true, false
}

// end stops the guest at the end of a test.
func (m *machine) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.halt()
	if m.stopped != nil {
		<-m.stopped // also of one that died
	}
}

// alive locks the machine, unless it is dead.
func (m *machine) alive() (unlock func(), err error) {
	m.mu.Lock()
	if m.dead {
		m.mu.Unlock()
		return nil, errDead
	}
	return m.mu.Unlock, nil
}

func call(hook func() error) error {
	if hook == nil {
		return nil
	}
	return hook()
}

func (m *machine) Description() ([]byte, error) { return m.shape, nil }
func (m *machine) Memory() *memory.Guest        { return m.mem }

// The guest's stores go through the accessors, which mark; so the hypervisor's half has nothing to say.
func (m *machine) DirtySource() memory.DirtySource { return m }
func (m *machine) Start() error                    { return nil }
func (m *machine) Collect(*memory.PageSet) error   { return nil }
func (m *machine) Stop() error                     { return nil }

func (m *machine) Pause() error {
	if err := call(m.onPause); err != nil {
		return err
	}
	unlock, err := m.alive()
	if err != nil {
		return err
	}
	m.pauses++
	running, stopped := m.running, m.stopped
	if running {
		m.tellStop()
	}
	unlock()
	if !running {
		return nil
	}
	<-stopped // it may wait for a page; a process can die meanwhile
	m.mu.Lock()
	defer m.mu.Unlock()
	m.halt()
	return nil
}

func (m *machine) Resume() error {
	if err := call(m.onResume); err != nil {
		return err
	}
	unlock, err := m.alive()
	if err != nil {
		return err
	}
	defer unlock()
	if m.released {
		panic("resumed after the commit")
	}
	if !m.running {
		m.start()
	}
	return nil
}

func (m *machine) SaveState() ([]byte, error) {
	if err := call(m.onSave); err != nil {
		return nil, err
	}
	unlock, err := m.alive()
	if err != nil {
		return nil, err
	}
	defer unlock()
	return json.Marshal(m.state)
}

// Checkpoint has the guest stand still for a moment.
func (m *machine) Checkpoint(gather func() error) ([]byte, error) {
	unlock, err := m.alive()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := call(m.onCheckpoint); err != nil {
		return nil, err
	}
	if m.hush() { // to the world it runs: nobody else may
		defer m.spin()
	}
	state, err := json.Marshal(m.state)
	if err != nil {
		return nil, err
	}
	return state, gather()
}

func (m *machine) Release() {
	unlock, err := m.alive()
	if err != nil {
		return
	}
	defer unlock()
	m.released, m.owned = true, false
}

func (m *machine) Prepare(description []byte) (*memory.Guest, error) {
	if err := call(m.onPrepare); err != nil {
		return nil, err
	}
	unlock, err := m.alive()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if !bytes.Equal(description, m.shape) {
		return nil, fmt.Errorf("this machine is %s and the source's is %s", m.shape, description)
	}
	m.built = true
	return m.mem, nil
}

func (m *machine) RestoreState(state []byte) error {
	if err := call(m.onRestore); err != nil {
		return err
	}
	unlock, err := m.alive()
	if err != nil {
		return err
	}
	defer unlock()
	return json.Unmarshal(state, &m.state)
}

func (m *machine) Run() error {
	if err := call(m.onRun); err != nil {
		return err
	}
	unlock, err := m.alive()
	if err != nil {
		return err
	}
	defer unlock()
	m.owned = true
	m.start()
	return nil
}

func (m *machine) Discard() {
	unlock, err := m.alive()
	if err != nil {
		return
	}
	defer unlock()
	if m.owned || !m.built {
		panic("discarded a machine that is owned or was never built")
	}
	m.built = false
}

// differences compares the RAM of two stopped machines.
func differences(a, b *memory.Guest) error {
	pa, pb := make([]byte, memory.PageSize), make([]byte, memory.PageSize)
	for _, r := range a.Regions() {
		for off := uint64(0); off < r.SizeBytes; off += memory.PageSize {
			gpa := r.Base + memory.GPA(off)
			if err := errors.Join(a.ReadAt(gpa, pa), b.ReadAt(gpa, pb)); err != nil {
				return err
			}
			if !bytes.Equal(pa, pb) {
				return fmt.Errorf("page %#x differs", uint64(gpa))
			}
		}
	}
	return nil
}
