package track_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/guest/track"
	"github.com/fineline-vmm/fineline/guest/track/driver"
	"github.com/fineline-vmm/fineline/guest/track/procmem"
	"github.com/fineline-vmm/fineline/guest/track/tracktest"
)

const heap = 0x550000000000

func mapping(start, pages uint64) procmem.Mapping {
	return procmem.Mapping{Start: start, End: start + pages*track.PageBytes, Writable: true}
}

// rig is a device with processes by number.
type rig struct {
	machine   *tracktest.Machine
	device    *track.Device
	processes map[int]*tracktest.Process
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{machine: tracktest.NewMachine(), processes: map[int]*tracktest.Process{}}
	d, err := driver.Open(r.machine, r.machine.DMA(driver.DMAPages))
	if err != nil {
		t.Fatal(err)
	}
	r.device = track.NewDevice(d, func(pid int) (track.AddressSpace, error) {
		p := r.processes[pid]
		if p == nil {
			return nil, fmt.Errorf("%w: no process %d", procmem.ErrGone, pid)
		}
		return p.Open(), nil
	})
	return r
}

func (r *rig) process(pid int, mappings ...procmem.Mapping) *tracktest.Process {
	p := tracktest.NewProcess(r.machine, mappings...)
	r.processes[pid] = p
	return p
}

func open(t *testing.T, system track.System, pid int, o track.Options) track.Session {
	t.Helper()
	s, err := system.Process(pid, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// harvest wants exactly these pages.
func harvest(t *testing.T, s track.Session, want ...track.Page) {
	t.Helper()
	r, err := s.Harvest()
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(r.Pages) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", r.Pages, want)
	}
}

func store(p *tracktest.Process, address uint64) {
	p.Do(func(s *tracktest.Space) { s.Store(address, []byte{0xaa}) })
}

func TestASession(t *testing.T) {
	r := newRig(t)
	p := r.process(7, mapping(heap, 8))
	s := open(t, r.device, 7, track.Options{})
	if _, err := s.Harvest(); !errors.Is(err, track.ErrState) {
		t.Errorf("harvest before start: %v", err)
	}
	check(t, s.Add(track.Range{Address: heap + 100, Bytes: 5000})) // pages 0 and 1
	check(t, s.Start())
	if err := s.Start(); !errors.Is(err, track.ErrState) {
		t.Errorf("two starts: %v", err)
	}
	for i := range uint64(8) {
		store(p, heap+i*4096+i*64)
	}
	harvest(t, s, track.Page{Address: heap, Lines: 1}, track.Page{Address: heap + 4096, Lines: 2})

	// A range that comes while it runs is watched from Add's return on, and what moved meanwhile is not forgotten.
	p.Do(func(s *tracktest.Space) { s.Move(heap, 0) })
	check(t, s.Add(track.Range{Address: heap + 7*4096, Bytes: 1}))
	p.Do(func(s *tracktest.Space) { s.Store(heap+7*4096+5*64, []byte{1}) })
	harvest(t, s, track.Page{Address: heap, Lines: ^uint64(0), Flags: track.Moved}, track.Page{Address: heap + 7*4096, Lines: 1 << 5})

	check(t, s.Remove(track.Range{Address: heap, Bytes: 2 * 4096}))
	p.Do(func(s *tracktest.Space) { s.Store(heap, []byte{9}); s.Store(heap+7*4096, []byte{9}) })
	check(t, s.Stop())
	if err := s.Stop(); !errors.Is(err, track.ErrState) {
		t.Errorf("two stops: %v", err)
	}
	harvest(t, s, track.Page{Address: heap + 7*4096, Lines: 1})
	check(t, s.Start())
	store(p, heap+7*4096+64)
	harvest(t, s, track.Page{Address: heap + 7*4096, Lines: 2})

	check(t, s.Close())
	check(t, s.Close())
	if _, err := s.Harvest(); !errors.Is(err, track.ErrClosed) {
		t.Errorf("harvest after close: %v", err)
	}
	if r.machine.Contexts() != 0 || p.Opened() != 0 {
		t.Errorf("%d contexts, opened %d times", r.machine.Contexts(), p.Opened())
	}
	check(t, r.device.Close())
	check(t, r.device.Close())
	if _, err := r.device.Process(7, track.Options{}); !errors.Is(err, driver.ErrClosed) || p.Opened() != 0 {
		t.Errorf("open after close: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	r := newRig(t)
	readOnly := procmem.Mapping{Start: heap + 4096, End: heap + 2*4096}
	r.process(7, mapping(heap, 1), readOnly, mapping(heap+2*4096, 1))
	s := open(t, r.device, 7, track.Options{})
	for want, bad := range map[error]track.Range{
		track.ErrBadRange:  {Address: ^uint64(0) - 4096, Bytes: 1 << 20},
		track.ErrNotMapped: {Address: heap, Bytes: 3 * 4096},
	} {
		if err := s.Add(bad); !errors.Is(err, want) {
			t.Errorf("%x: %v", bad, err)
		}
	}
	check(t, s.Start()) // of nothing
	harvest(t, s)
	refusal := errors.New("not this one")
	_, err := r.device.Process(7, track.Options{Check: func() error { return refusal }})
	if !errors.Is(err, refusal) || r.processes[7].Opened() != 1 {
		t.Errorf("check: %v", err)
	}
	if _, err := r.device.Process(8, track.Options{}); !errors.Is(err, track.ErrGone) {
		t.Errorf("no process: %v", err)
	}
	if _, err := r.device.Process(7, track.Options{Mode: track.Homed}); !errors.Is(err, driver.ErrBadFlags) || r.processes[7].Opened() != 1 {
		t.Errorf("mode: %v", err)
	}
}

// TestAWholeProcess follows mappings that appear and the process to its end.
func TestAWholeProcess(t *testing.T) {
	r := newRig(t)
	shared := mapping(heap+1<<30, 1)
	shared.Shared = true
	p := r.process(7, mapping(heap, 2), shared)
	all := open(t, r.device, 7, track.Options{Follow: track.FollowWritable, CountBytes: true})
	private := open(t, r.device, 7, track.Options{Follow: track.FollowPrivate})
	check(t, all.Start())
	check(t, private.Start())
	store(p, heap+64)
	store(p, shared.Start)
	p.Map(mapping(heap+1<<20, 1))
	fresh := track.Page{Address: heap + 1<<20, Lines: ^uint64(0), Flags: track.New}
	harvest(t, all, track.Page{Address: heap, Lines: 2, ChangedBytes: 1, Flags: track.Counted}, fresh,
		track.Page{Address: shared.Start, Lines: 1, ChangedBytes: 1, Flags: track.Counted})
	harvest(t, private, track.Page{Address: heap, Lines: 2}, fresh)
	p.End()
	for _, s := range []track.Session{all, private} {
		if _, err := s.Harvest(); !errors.Is(err, track.ErrGone) {
			t.Errorf("after the end: %v", err)
		}
		check(t, s.Close())
	}
	if r.machine.Contexts() != 0 {
		t.Errorf("%d contexts", r.machine.Contexts())
	}
}

// TestOwnMemoryIsLocked lists real memory of this process, with a model of its page table.
func TestOwnMemoryIsLocked(t *testing.T) {
	r := newRig(t)
	mem, err := unix.Mmap(-1, 0, 4*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	check(t, err)
	defer unix.Munmap(mem)
	at := track.RangeOf(mem)
	r.process(os.Getpid(), mapping(at.Address, 4))
	before := lockedKB(t)
	s, err := r.device.Self(track.Options{})
	check(t, err)
	check(t, s.Add(track.RangeOf(mem[:4096]), track.RangeOf(mem[4096:3*4096])))
	if got := lockedKB(t) - before; got != 12 {
		t.Errorf("%d KiB are locked, want 12", got)
	}
	check(t, s.Remove(track.RangeOf(mem[:1])))
	if got := lockedKB(t) - before; got != 8 {
		t.Errorf("%d KiB are locked after Remove, want 8", got)
	}
	if err := s.Add(track.Range{Address: at.Address + 1<<40, Bytes: 1}); err == nil {
		t.Error("memory that is not there")
	}
	check(t, s.Close())
	if got := lockedKB(t) - before; got != 0 {
		t.Errorf("%d KiB are locked after Close", got)
	}
}

func lockedKB(t *testing.T) (kb int) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	check(t, err)
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "VmLck: %d kB", &kb); err == nil {
			return kb
		}
	}
	t.Fatal("no VmLck")
	return 0
}

// TestManyThreads uses sessions of one device from many goroutines, and closes it under them.
func TestManyThreads(t *testing.T) {
	r := newRig(t)
	var wg sync.WaitGroup
	var worked sync.WaitGroup
	for i := range 8 {
		p := r.process(i, mapping(heap, 4))
		s := open(t, r.device, i, track.Options{Follow: track.FollowWritable})
		check(t, s.Start())
		for range 2 {
			worked.Add(1)
			wg.Go(func() {
				for n := uint64(0); ; n++ {
					store(p, heap+n%256*64)
					_, err := s.Harvest()
					if n == 50 {
						worked.Done()
					}
					if err != nil {
						if n < 50 || !errors.Is(err, driver.ErrClosed) && !errors.Is(err, track.ErrClosed) {
							t.Errorf("harvest %d: %v", n, err)
						}
						break
					}
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
	worked.Wait()
	check(t, r.device.Close())
	wg.Wait()
}
