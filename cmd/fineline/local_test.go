package main

import (
	"fmt"
	"testing"

	"github.com/fineline-vmm/fineline/vmm/api"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// TestOwnershipLocal is TestOwnership where both sides hold the same memory: the guest, which checks each line before it
// writes it again, would notice any store of the side that does not own it.
func TestOwnershipLocal(t *testing.T) {
	hostTierOnly(t)
	vmmtest.NeedKVM(t)
	for _, c := range enumerate(t) {
		if c.cancel {
			continue // over before it can be cancelled from outside; package migration's tests cancel from inside
		}
		c.local = true
		t.Run(c.String(), func(t *testing.T) { testOwnership(t, c) })
	}
}

// TestLocalChain hands one guest from process to process, as an upgrade of the VMM does, with no line lost
// and nearly no byte sent, whatever the size of the memory.
func TestLocalChain(t *testing.T) {
	vmmtest.NeedKVM(t)
	large := "8G"
	if emulated() {
		large = "4G" // a guest may not be larger than its host
	}
	for _, tc := range []struct {
		vcpus  int
		memory string
		dirty  string
		hops   int
	}{
		{1, "64M", "log", 20},
		{4, "64M", "ring", 20},
		{2, large, "log", 3},
	} {
		t.Run(fmt.Sprintf("%d vCPUs, %s, dirty %s", tc.vcpus, tc.memory, tc.dirty), func(t *testing.T) {
			h := newHouse(t)
			at := h.startDirty("m0", "", fmt.Sprintf("vcpus=%d pages=4096 lines=4 rate=0 verify=1 progress=0", tc.vcpus),
				"--cpus", fmt.Sprint(tc.vcpus), "--memory", tc.memory, "--dirty", tc.dirty)
			steps, downtimeMS := at.check(), 0.0
			for n := range tc.hops {
				to := "unix:" + h.path("mig")
				next := h.start(fmt.Sprintf("m%d", n%2+1), "", "--incoming", to)
				r := request(to)
				r.Local = true
				result, err := at.Migrate(h.ctx, r, ignoreProgress)
				if err != nil {
					t.Fatalf("hop %d: %v\n%s", n, err, at.Stderr())
				}
				if result.Mode != "local" || result.PagesSent != 0 || result.BytesSent > 1<<20 {
					t.Fatalf("hop %d: %+v", n, result)
				}
				downtimeMS += result.DowntimeMS
				if code := at.awaitExit(); code != 0 {
					t.Fatalf("hop %d: the source ended with %d\n%s", n, code, at.Stderr())
				}
				at.checkLeftovers()
				_ = at.serial.Close()
				next.awaitPhase(api.Running)
				now := next.check()
				if now < steps {
					t.Fatalf("hop %d: the guest went from %d steps back to %d", n, steps, now)
				}
				at, steps = next, now
			}
			// It can also go on in the other way.
			last, to := h.startIncoming("last", "")
			at.move(to)
			last.awaitPhase(api.Running)
			last.checkRuns()
			last.stop()
			t.Logf("%d hops, mean downtime %.2f ms", tc.hops, downtimeMS/float64(tc.hops))
		})
	}
}

// TestLocalPaused: a guest that is paused arrives paused, and goes on from there.
func TestLocalPaused(t *testing.T) {
	h := newHouse(t)
	src := h.startDirty("src", "", ownershipLoad, "--memory", "64M")
	before := src.check()
	if err := src.API.Pause(h.ctx); err != nil {
		t.Fatal(err)
	}
	dst, to := h.startIncoming("dst", "")
	r := request(to)
	r.Local = true
	if result, err := src.Migrate(h.ctx, r, ignoreProgress); err != nil || result.Error != "" {
		t.Fatalf("%+v, %v", result, err)
	}
	src.awaitGone()
	dst.goesOn(before)
	dst.stop()
}
