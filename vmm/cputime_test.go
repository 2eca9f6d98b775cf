package vmm

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOwnCPUTime: what a spinning vCPU takes is left out, while it runs and when its thread has ended.
func TestOwnCPUTime(t *testing.T) {
	m, _ := dirtyMachine(t, 1, "pages=64 rate=0 progress=0", false)
	read := func(from func() (time.Duration, error)) time.Duration {
		t.Helper()
		d, err := from()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	process := func() time.Duration {
		return read(func() (time.Duration, error) { return cpuClock(unix.CLOCK_PROCESS_CPUTIME_ID) })
	}
	before := process()
	own := read(m.OwnCPUTime)
	guest := read(m.cpus[0].cpuTime)
	const enough = 50 * time.Millisecond
	spun := guest
	for spun-guest < enough { // ends: the guest spins
		spun = read(m.cpus[0].cpuTime)
	}
	for _, state := range []string{"it runs", "it has ended"} {
		took := read(m.OwnCPUTime) - own
		// The readings lie within each other, so this holds however long they take.
		if most := process() - before - (spun - guest); took < 0 || took > most {
			t.Errorf("when %s: %v of its own, want at most %v", state, took, most)
		}
		m.Stop()
		m.cpus[0].setWant(gone)
		m.cpus[0].await(gone)
	}
}
