package vmm

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/coherence/track"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/kvm"
)

var digestSeed = maphash.MakeSeed()

// memorySum sums up all RAM. Pages that are zero count as if they had never been touched: KVM has one
// resident before it writes there.
func memorySum(t *testing.T, m *Machine) uint64 {
	t.Helper()
	pages, err := m.Memory().DataPages()
	if err != nil {
		t.Fatal(err)
	}
	var h maphash.Hash
	h.SetSeed(digestSeed)
	zero := make([]byte, memory.PageSize)
	pages.Range(func(gpa memory.GPA) bool {
		err = errors.Join(err, m.Memory().ViewPage(gpa, func(page []byte) {
			if !bytes.Equal(page, zero) {
				maphash.WriteComparable(&h, gpa)
				_, _ = h.Write(page)
			}
		}))
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return h.Sum64()
}

// lentFiles are m's, as another process gets them.
func lentFiles(t *testing.T, m *Machine) (files []int) {
	t.Helper()
	err := m.Memory().LendFiles(func(fds []int) error {
		for _, fd := range fds {
			copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				return err
			}
			files = append(files, copied)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// lendMachine hands a paused machine over with its memory, after one that was given up at each point where that may
// happen: no byte of the memory may have changed.
func lendMachine(t *testing.T, m *Machine, cfg Config) *Machine {
	t.Helper()
	sealed, err := m.Save(true)
	if err != nil {
		t.Fatal(err)
	}
	return lendWith(t, m, cfg, sealed)
}

func lendWith(t *testing.T, m *Machine, cfg Config, sealed []byte) *Machine {
	t.Helper()
	description, err := m.Description()
	if err != nil {
		t.Fatal(err)
	}
	want := memorySum(t, m)
	unchanged := func(when string) {
		t.Helper()
		if got := memorySum(t, m); got != want {
			t.Fatalf("%s: the memory has sum %x, had %x", when, got, want)
		}
	}
	build := func() *Machine {
		o, err := NewOnMemory(description, cfg, lentFiles(t, m))
		if err != nil {
			t.Fatal(err)
		}
		unchanged("built")
		return o
	}
	restore := func(o *Machine) {
		if resume, err := o.Restore(sealed); err != nil || !resume {
			t.Fatal(resume, err)
		}
		unchanged("restored")
	}
	discard := func(o *Machine) {
		o.HandOver()
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
		unchanged("discarded")
	}
	discard(build())
	given := build()
	restore(given)
	discard(given)
	bad := build()
	if _, err := bad.Restore(sealed[:len(sealed)-1]); err == nil {
		t.Fatal("restored a state that was cut")
	}
	discard(bad)
	o := build()
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	})
	restore(o)
	return o
}

// TestLentMachine: the guest goes on at the source after hand-overs that were given up, and at the destination
// after one that was not; the source goes and takes nothing with it.
func TestLentMachine(t *testing.T) {
	for _, cpus := range []int{1, 4} {
		for _, ring := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d vCPUs, ring %v", cpus, ring), func(t *testing.T) {
				m, _ := dirtyMachine(t, cpus, "pages=256 lines=8 rate=0", ring)
				steps := check(t, m)
				for range 3 {
					_ = lendMachine(t, m, Config{}) // ready, and then given up
					if err := m.Resume(); err != nil {
						t.Fatal(err)
					}
					steps = goesOn(t, m, steps)
					o := lendMachine(t, m, Config{})
					before := memorySum(t, o)
					m.HandOver()
					if err := m.Memory().Close(); err != nil { // the part of Close that could hurt
						t.Fatal(err)
					}
					if memorySum(t, o) != before {
						t.Fatal("the memory went with the source")
					}
					if err := o.Resume(); err != nil {
						t.Fatal(err)
					}
					steps = goesOn(t, o, steps)
					m = o
				}
			})
		}
	}
}

// goesOn waits until a guest that runs has done more than so many steps, and leaves it paused.
func goesOn(t *testing.T, m *Machine, steps uint64) uint64 {
	t.Helper()
	for {
		if now := check(t, m); now > steps {
			return now
		}
		if err := m.Resume(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRestoreOnLentMemory: a state in which the guest has given KVM places in its memory to write to. KVM writes
// there when it runs the guest, and not before.
func TestRestoreOnLentMemory(t *testing.T) {
	// KVM's own, of its documents virt/kvm/x86/msr.
	const wallClock, systemTime, stealTime, endOfInterrupt, enabled = 0x4b564d00, 0x4b564d01, 0x4b564d03, 0x4b564d04, 1
	m, _ := dirtyMachine(t, 2, "pages=64 rate=0", false)
	check(t, m)
	sealed, err := m.Save(true)
	if err != nil {
		t.Fatal(err)
	}
	s, err := unsealState(sealed)
	if err != nil {
		t.Fatal(err)
	}
	at := m.Config().MemoryBytes - 4*memory.PageSize
	set := 0
	for i, v := range s.vcpus {
		for index, value := range map[uint32]uint64{
			wallClock: at, systemTime: at + 64 + uint64(i)*64 | enabled, stealTime: at + 1024 + uint64(i)*64 | enabled,
			endOfInterrupt: at + 2048 + uint64(i)*64 | enabled,
		} {
			if n := slices.IndexFunc(v.MSRs, func(r kvm.MSR) bool { return r.Index == index }); n >= 0 {
				v.MSRs[n].Value = value
				set++
			}
		}
	}
	if set == 0 {
		t.Skip("this KVM has none of these registers")
	}
	s.resume = true
	if sealed, err = s.seal(); err != nil {
		t.Fatal(err)
	}
	lendWith(t, m, Config{}, sealed)
	t.Logf("%d registers name places in memory", set)
}

// TestLentTracking is TestTrackingMoves with memory that is handed over.
func TestLentTracking(t *testing.T) {
	for mode, steps := range map[track.Mode]int{track.Diff: 100_000, track.Stores: 1000, track.Homed: 500} {
		t.Run(mode.String(), func(t *testing.T) { testTrackingMoves(t, mode, repeats(steps), lendMachine) })
	}
}

// TestLentRefused: what a peer may pass for a machine's memory is refused, and closed.
func TestLentRefused(t *testing.T) {
	m, _ := dirtyMachine(t, 1, "pages=64 rate=0", false)
	description, err := m.Description()
	if err != nil {
		t.Fatal(err)
	}
	pipe := func() int {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		unix.Close(p[0])
		return p[1]
	}
	open := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	refuse := func(Config) error { return errors.New("not here") }
	for _, tc := range []struct {
		name        string
		description []byte
		cfg         Config
		files       func() []int
		want        error
	}{
		{"none", description, Config{}, func() []int { return nil }, memory.ErrBadFiles},
		{"a pipe", description, Config{}, func() []int { return []int{pipe()} }, memory.ErrBadFiles},
		{"too many", description, Config{}, func() []int { return append(lentFiles(t, m), pipe()) }, memory.ErrBadFiles},
		{"bad description", []byte("{"), Config{}, func() []int { return lentFiles(t, m) }, nil},
		{"refused", description, Config{Accept: refuse}, func() []int { return lentFiles(t, m) }, ErrIncompatible},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := open()
			_, err := NewOnMemory(tc.description, tc.cfg, tc.files())
			if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
			if after := open(); after != before {
				t.Errorf("%d descriptors are open, %d were before", after, before)
			}
		})
	}
	if err := m.Pause(); err != nil || strings.Contains(m.Status().String(), "stopped") {
		t.Error(err)
	}
}
