package main

import (
	"fmt"
	"net"
	"testing"

	"github.com/fineline-vmm/fineline/vmm/api"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// TestBackAndForth moves one guest from process to process a hundred times under each pattern, in one mode after the
// other. Each destination is a new process, the next source the one before. No line may be lost, and time and
// steps only go forward.
func TestBackAndForth(t *testing.T) {
	vmmtest.NeedKVM(t)
	migrations := 100
	if slow() {
		migrations = 3
	}
	for i, vcpus := range []int{1, 4} {
		for j, pattern := range []string{"seq", "random", "zipf"} {
			dirty := []string{"log", "ring"}[(i+j)%2]
			t.Run(fmt.Sprintf("%s, %d vCPUs, dirty %s", pattern, vcpus, dirty), func(t *testing.T) {
				h := newHouse(t)
				h.backAndForth(migrations, fmt.Sprintf(
					"pattern=%s vcpus=%d pages=512 lines=4 rate=%d verify=1 progress=0", pattern, vcpus, 20000/vcpus),
					"--cpus", fmt.Sprint(vcpus), "--memory", "32M", "--dirty", dirty)
			})
		}
	}
}

func (h *house) backAndForth(migrations int, cmdline string, args ...string) {
	h.t.Helper()
	at := h.startDirty("m0", "", cmdline, args...)
	steps := at.check()
	var downtimeMS, totalMS float64
	for n := range migrations {
		to := "unix:" + h.path("mig")
		if n%2 == 1 {
			to = freePort(h.t)
		}
		next := h.start(fmt.Sprintf("m%d", n%2+1), "", "--incoming", to)
		how := request(to)
		switch n % 3 {
		case 1:
			how.MemoryMode = "Postcopy"
		case 2:
			how.MemoryMode, how.DowntimeMS = "Hybrid", 1 // so that it does not converge
		}
		r := at.moveAs(how)
		downtimeMS, totalMS = downtimeMS+r.DowntimeMS, totalMS+r.TotalMS
		if code := at.awaitExit(); code != 0 {
			h.t.Fatalf("migration %d: the source ended with %d\n%s", n, code, at.Stderr())
		}
		at.checkLeftovers()
		_ = at.serial.Close()
		next.awaitPhase(api.Running)
		now := next.check()
		if now < steps {
			h.t.Fatalf("migration %d: the guest went from %d steps back to %d", n, steps, now)
		}
		at, steps = next, now
	}
	last := at.checkRuns()
	at.stop()
	h.t.Logf("%d migrations, %d steps, mean downtime %.1f ms, mean total %.0f ms",
		migrations, last, downtimeMS/float64(migrations), totalMS/float64(migrations))
}

// freePort is an address that nobody listens on, now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return "tcp:" + l.Addr().String()
}
