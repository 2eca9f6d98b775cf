package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/wire"
	"github.com/fineline-vmm/fineline/vmm/api"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

const (
	// atNext: the destination has passed it on.
	atNext owner = "next destination"
	// withMemory: the destination, or nobody if a part of the guest's memory was at the source alone.
	withMemory owner = "destination, if it has all memory"
)

// keptLaw says whose the guest is after each fault of a migration whose source is kept: rules 7 and 8 of
// migration/doc.go. A point that is missing here fails the test.
var keptLaw = map[inject.Point]map[inject.Action]owner{
	// It is the destination's since the switch. The source's death costs what only the source has.
	inject.SourceStandby:    {inject.Kill: withMemory, inject.Cut: atDestination, inject.Error: atDestination},
	inject.SourceCheckpoint: {inject.Kill: withMemory, inject.Cut: atDestination, inject.Error: atDestination},
	// The destination is dead by then, and so are all with this one.
	inject.SourceResumed: {inject.Kill: nobody, inject.Cut: atSource, inject.Error: atSource},
	// The destination dies, and the guest does not (rule 7). A fault of the reverse stream alone is none of the guest's.
	inject.DestinationCheckpoint: {inject.Kill: atSource, inject.Cut: atDestination, inject.Error: atDestination},
	inject.DestinationAcked:      {inject.Kill: atSource, inject.Cut: atDestination, inject.Error: atDestination},
	// It is about to leave the destination: the source must not run it any more (rule 8).
	inject.DestinationEnded: {inject.Kill: nobody, inject.Cut: atNext, inject.Error: atNext},
}

// keptCase is one fault of one migration with a source that is kept.
type keptCase struct {
	mode   wire.Mode
	point  inject.Point
	action inject.Action
}

func (c keptCase) String() string { return fmt.Sprintf("%s,%s=%s", c.mode, c.point, c.action) }

// want is what the law says.
func (c keptCase) want(t *testing.T) owner {
	t.Helper()
	action := c.action
	if action == inject.Stall { // as good as cut, once it is noticed
		action = inject.Cut
	}
	want, ok := keptLaw[c.point][action]
	switch {
	case !ok:
		t.Fatalf("the law says nothing about %s", c)
	case want == withMemory && !c.mode.AfterCommit():
		return atDestination
	}
	return want
}

// checkpointBefore is the one that the source has when the destination dies.
func (c keptCase) checkpointBefore() int {
	if c.point == inject.DestinationCheckpoint {
		return 1
	}
	return 2
}

// plans are the faults of the sides: at a second checkpoint, so that there is one before.
func (c keptCase) plans() (source, destination string) {
	const second = "#2"
	fault := string(c.point)
	if slices.Contains([]inject.Point{inject.SourceCheckpoint, inject.DestinationCheckpoint, inject.DestinationAcked}, c.point) {
		fault += second
	}
	fault += "=" + string(c.action)
	if c.point == inject.SourceResumed {
		destination = string(inject.DestinationAcked) + second + "=" + string(inject.Kill)
	}
	if strings.HasPrefix(fault, "source.") {
		return fault, destination
	}
	return "", fault
}

// enumerateKept makes a case for each point and action. Hybrid is post-copy to a source that is kept: its deaths are enough.
func enumerateKept() (cases []keptCase) {
	actions := map[wire.Mode][]inject.Action{
		wire.ModePrecopy:  {inject.Kill, inject.Cut, inject.Error},
		wire.ModePostcopy: {inject.Kill, inject.Cut, inject.Error},
		wire.ModeHybrid:   {inject.Kill},
	}
	for _, mode := range []wire.Mode{wire.ModePrecopy, wire.ModePostcopy, wire.ModeHybrid} {
		if os.Getenv("FINELINE_STALLS") == "all" {
			actions[mode] = append(actions[mode], inject.Stall)
		}
		for _, point := range inject.StandbyPoints() {
			for _, action := range actions[mode] {
				cases = append(cases, keptCase{mode, point, action})
			}
		}
	}
	return cases
}

// TestOwnershipKept is TestOwnership with a source that is kept.
func TestOwnershipKept(t *testing.T) {
	hostTierOnly(t)
	vmmtest.NeedKVM(t)
	beside(t, enumerateKept(), keptCase.String, testOwnershipKept)
}

func testOwnershipKept(t *testing.T, c keptCase) {
	want := c.want(t)
	h := newHouse(t)
	atSrc, atDst := c.plans()
	src := h.startDirty("src", atSrc, ownershipLoad, "--memory", "64M")
	dst, to := h.startIncoming("dst", atDst)
	before := src.check()
	h.watchForTwo(src, dst)
	_, err := src.Migrate(h.ctx, keptRequest(to, modeName(c.mode)), ignoreProgress)
	if killed := strings.HasSuffix(atSrc, "=kill"); err != nil && !killed {
		t.Fatal(err)
	}
	switch want {
	case withMemory:
		want = dst.ownerByMemory()
	case atDestination:
		if c.action != inject.Kill {
			src.release()
		}
	case atNext:
		verifyMovesOn(t, src, dst, before)
		return
	case nobody:
		if c.point == inject.DestinationEnded {
			dst.awaitMoved(src)
			if err := dst.moveOn(); err == nil {
				t.Error("the destination has moved the guest on")
			}
		}
	}
	if want == atSource {
		src.awaitPhase(api.Running)
		from := fmt.Sprintf("from checkpoint %d,", c.checkpointBefore())
		h.eventually("it says that the guest goes on "+from, func() bool { return strings.Contains(src.Stderr(), from) })
	}
	verifyOwner(t, src, dst, want, before)
}

// ownerByMemory waits until a destination whose source died has all memory, or has ended since it never will.
func (m *machine) ownerByMemory() (who owner) {
	m.h.t.Helper()
	m.h.eventually(m.name+" knows of its memory", func() bool {
		select {
		case <-m.Exited():
			who = nobody
			return true
		default:
		}
		var status migrationStatus
		text, err := m.API.Migration(m.h.ctx)
		if err == nil {
			err = json.Unmarshal(text, &status)
		}
		who = atDestination
		return err == nil && status.Incoming != nil && status.Incoming.AbsentPages == 0
	})
	if who == nobody && !strings.Contains(m.Stderr(), "a part of the guest's memory is lost") {
		m.h.t.Errorf("%s ended with %v\n%s", m.name, m.Err(), m.Stderr())
	}
	return who
}

// awaitMoved waits until the guest runs at dst and checkpoints of it come to src.
func (m *machine) awaitMoved(src *machine) {
	m.h.t.Helper()
	m.awaitPhase(api.Running)
	src.awaitCheckpoints()
}

// awaitCheckpoints waits for some, also of those after a fault at the second one.
func (m *machine) awaitCheckpoints() {
	m.h.t.Helper()
	m.awaitPhase(api.StandingBy)
	last := m.standby().Checkpoint
	m.h.eventually("checkpoints come", func() bool { return m.standby().Checkpoint > last+3 })
}

// release gives up a guest whose checkpoints come in spite of all.
func (m *machine) release() {
	m.h.t.Helper()
	m.awaitCheckpoints()
	if err := m.API.ResolveMigration(m.h.ctx, api.DecisionDiscard); err != nil {
		m.h.t.Fatal(err)
	}
}

// verifyMovesOn has the destination pass the guest on, of which the source must hear.
func verifyMovesOn(t *testing.T, src, dst *machine, before uint64) {
	t.Helper()
	dst.awaitMoved(src)
	if after := dst.check(); after < before {
		t.Errorf("the guest went from %d steps back to %d", before, after)
	}
	if err := dst.moveOn(); err != nil {
		t.Fatal(err)
	}
	src.awaitGone()
	for _, m := range []*machine{src, dst} {
		if code := m.awaitExit(); code != 0 {
			t.Errorf("%s ended with %d\n%s", m.name, code, m.Stderr())
		}
		m.checkLeftovers()
	}
}
