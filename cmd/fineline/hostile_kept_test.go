package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/migration/hostile"
	"github.com/fineline-vmm/fineline/migration/identity"
	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/migration/wire"
	"github.com/fineline-vmm/fineline/vmm/api"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// takeOver has the guest go on from what a hostile destination has left of its checkpoints.
func (m *machine) takeOver(d hostile.Destination) {
	m.h.t.Helper()
	m.awaitPhase(api.StandingBy)
	if has := m.standby().Checkpoint; has != d.Checkpoint {
		m.h.t.Errorf("the source has checkpoint %d, want %d", has, d.Checkpoint)
	}
	if err := m.API.ResolveMigration(m.h.ctx, api.DecisionKeep); (err != nil) != d.Lost {
		m.h.t.Fatal(err)
	}
	if d.Lost {
		m.awaitGone()
		m.checkSound()
	}
}

// hello is what a source says on its connections.
func (m *machine) hello() wire.Hello {
	m.h.t.Helper()
	process, err := identity.Self()
	if err != nil {
		m.h.t.Fatal(err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.PID()))
	if err != nil {
		m.h.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	const startTime = 22 - 3 // proc(5), from the third field on
	process.PID = m.PID()
	if process.StartTicks, err = strconv.ParseUint(strings.Fields(rest)[startTime], 10, 64); err != nil {
		m.h.t.Fatal(err)
	}
	path := m.h.path(m.name + ".journal")
	records, err := journal.ReadFile(path)
	if err != nil || len(records) == 0 {
		m.h.t.Fatalf("%d records, %v", len(records), err)
	}
	last := records[len(records)-1]
	return wire.Hello{Process: process, Journal: path, MachineID: last.MachineID, Generation: last.Generation}
}

// TestHostileKeepers: whatever is said on the connection for checkpoints in the name of the source, the guest goes on, and so
// do its checkpoints.
func TestHostileKeepers(t *testing.T) {
	hostTierOnly(t)
	vmmtest.NeedKVM(t)
	h := newHouse(t)
	src, dst := h.moveKept("Postcopy")
	hello := src.hello()
	for _, k := range hostile.Keepers() {
		src.awaitCheckpoints()
		ctx, cancel := context.WithTimeout(h.ctx, attackTimeout)
		err := k.Attack(ctx, dialUnix(h.path("dst.mig")), hello)
		t.Logf("%s: %v", k.Name, err)
		if ctx.Err() != nil {
			t.Errorf("%s: the destination did not hang up", k.Name)
		}
		cancel()
		dst.checkRuns()
		dst.checkSound()
		src.checkSound()
	}
	src.awaitCheckpoints()
	steps := dst.check()
	src.awaitCheckpoints()
	if err := dst.Kill(); err != nil {
		t.Fatal(err)
	}
	src.awaitPhase(api.Running)
	if after := src.checkRuns(); after < steps {
		t.Errorf("the guest went back from %d steps to %d, beyond the checkpoint", steps, after)
	}
	src.stop()
}
