package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/migration/wire"
	"github.com/fineline-vmm/fineline/vmm/api"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// owner is who runs the guest when all is settled.
type owner string

const (
	atSource      owner = "source"
	atDestination owner = "destination"
	// pausedThere: it belongs to the destination, which could not start it and says so.
	pausedThere owner = "destination, paused"
	// nobody: a VMM died with its guest.
	nobody owner = "nobody"
)

// law says whose the guest is after each fault: the rules of migration/doc.go, written down by
// point and action. A point that is missing here fails the test.
var law = map[inject.Point]map[inject.Action]owner{
	// Nothing has left the source that could run: its death is the guest's.
	inject.SourcePreflight: {inject.Kill: nobody, inject.Cut: atSource, inject.Error: atSource},
	inject.SourcePrecopy:   {inject.Kill: nobody, inject.Cut: atSource, inject.Error: atSource},
	inject.SourcePaused:    {inject.Kill: nobody, inject.Cut: atSource, inject.Error: atSource},
	inject.SourceRound:     {inject.Kill: nobody, inject.Cut: atSource, inject.Error: atSource},
	inject.SourceBatch:     {inject.Kill: nobody, inject.Cut: atSource, inject.Error: atSource},
	inject.SourceAbsent:    {inject.Kill: nobody, inject.Cut: atSource, inject.Error: atSource},
	// The destination has it all and proves the source's death (rule 3); a living source takes it back (rule 2).
	inject.SourceStateSent: {inject.Kill: atDestination, inject.Cut: atSource, inject.Error: atSource},
	// The word is given: the source may only ask (rule 5).
	inject.SourceCommitSent: {inject.Kill: atDestination, inject.Cut: atDestination, inject.Error: atDestination},
	inject.SourceDone:       {inject.Kill: atDestination, inject.Cut: atDestination, inject.Error: atDestination},
	// It took the guest back and dies with it.
	inject.SourceCancelled: {inject.Kill: nobody, inject.Cut: atSource, inject.Error: atSource},
	inject.SourceFailed:    {inject.Kill: nobody, inject.Cut: atSource, inject.Error: atSource},

	inject.DestinationAccepted:  {inject.Kill: atSource, inject.Cut: atSource, inject.Error: atSource},
	inject.DestinationReceiving: {inject.Kill: atSource, inject.Cut: atSource, inject.Error: atSource},
	inject.DestinationRound:     {inject.Kill: atSource, inject.Cut: atSource, inject.Error: atSource},
	inject.DestinationAbsent:    {inject.Kill: atSource, inject.Cut: atSource, inject.Error: atSource},
	inject.DestinationReady:     {inject.Kill: atSource, inject.Cut: atSource, inject.Error: atSource},
	// After the commit never (rule 6).
	inject.DestinationOwner:     {inject.Kill: nobody, inject.Cut: atDestination, inject.Error: pausedThere},
	inject.DestinationDiscarded: {inject.Kill: atSource, inject.Cut: atSource, inject.Error: atSource},
	// Memory that follows the guest: it is lost with either, and a lost link is replaced.
	inject.SourceServing:        {inject.Kill: nobody, inject.Cut: atDestination, inject.Error: atDestination},
	inject.SourcePush:           {inject.Kill: nobody, inject.Cut: atDestination, inject.Error: atDestination},
	inject.SourceRecovered:      {inject.Kill: nobody, inject.Cut: atDestination, inject.Error: atDestination},
	inject.DestinationPaging:    {inject.Kill: nobody, inject.Cut: atDestination, inject.Error: atDestination},
	inject.DestinationPage:      {inject.Kill: nobody, inject.Cut: atDestination, inject.Error: atDestination},
	inject.DestinationRecovered: {inject.Kill: nobody, inject.Cut: atDestination, inject.Error: atDestination},
	inject.DestinationComplete:  {inject.Kill: nobody, inject.Cut: atDestination, inject.Error: atDestination},
}

// lawOf is law, with what depends on the mode. A link that stands still is as good as cut, once it is noticed.
func lawOf(t *testing.T, mode wire.Mode, point inject.Point, action inject.Action) owner {
	if action == inject.Kill && mode.AfterCommit() && (point == inject.SourceStateSent || point == inject.SourceCommitSent) {
		return nobody // a guest without its memory is none
	}
	if action == inject.Stall {
		action = inject.Cut
	}
	want, ok := law[point][action]
	if !ok {
		t.Errorf("the law says nothing about %s=%s", point, action)
	}
	return want
}

// follows are the points that only memory which follows the guest has.
var follows = []inject.Point{
	inject.SourceAbsent, inject.SourceServing, inject.SourcePush, inject.SourceRecovered,
	inject.DestinationAbsent, inject.DestinationPaging, inject.DestinationPage, inject.DestinationRecovered, inject.DestinationComplete,
}

// rounds are the points that only pre-copy has, and hybrid.
var rounds = []inject.Point{inject.SourceRound, inject.SourceBatch, inject.DestinationRound}

// ownershipCase is one migration that goes wrong.
type ownershipCase struct {
	source, destination string // plans of faults
	cancel              bool   // somebody cancels in the first round
	local               bool   // the memory is handed over, not copied
	mode                wire.Mode
	want                owner
}

func (c ownershipCase) String() string {
	parts := []string{}
	if c.mode.AfterCommit() {
		parts = append(parts, string(c.mode))
	}
	for _, p := range []string{c.source, c.destination} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, ",")
}

// mayBeReady: READY comes before the cut, or after it. A small or local machine is restored that quickly, and both are lawful.
func (c ownershipCase) mayBeReady() bool {
	return strings.HasPrefix(c.source, "source.state-sent=cut") && c.destination == ""
}

// enumerate makes a case for each point and action. A point behind which there is no
// way without a fault gets one from the side given here.
func enumerate(t *testing.T) []ownershipCase {
	var cases []ownershipCase
	for _, point := range inject.Points() {
		if slices.Contains(follows, point) || slices.Contains(rounds, point) {
			continue // see enumerateModes
		}
		for _, action := range inject.Actions() {
			if action != inject.Stall { // see enumerateModes
				cases = append(cases, faultAt(t, wire.ModePrecopy, point, action))
			}
		}
	}
	// The same phases, reached when the destination has the whole guest and could run it.
	return append(cases,
		ownershipCase{source: "source.state-sent=error,source.failed=kill", want: nobody},
		ownershipCase{source: "source.state-sent=cut,source.failed=kill", want: nobody},
		ownershipCase{source: "source.state-sent=error,source.failed=cut", want: atSource},
		ownershipCase{source: "source.state-sent=error,source.failed=error", want: atSource},
		ownershipCase{source: "source.state-sent=error", destination: "destination.discarded=kill", want: atSource},
		ownershipCase{source: "source.state-sent=cut", destination: "destination.ready=kill", want: atSource},
		ownershipCase{source: "source.commit-sent=cut", destination: "destination.owner=kill", want: nobody},
		ownershipCase{source: "source.commit-sent=kill", destination: "destination.ready=cut", want: atSource},
		ownershipCase{source: "source.commit-sent=cut", destination: "destination.owner=cut", want: atDestination},
	)
}

// faultAt is a case with one fault, and those without which its point is not reached.
func faultAt(t *testing.T, mode wire.Mode, point inject.Point, action inject.Action) ownershipCase {
	c := ownershipCase{mode: mode, want: lawOf(t, mode, point, action), cancel: point == inject.SourceCancelled}
	fault := fmt.Sprintf("%s=%s", point, action)
	if strings.HasPrefix(string(point), "source.") {
		c.source = fault
	} else {
		c.destination = fault
	}
	switch point {
	case inject.SourceFailed:
		c.destination = "destination.receiving=error"
	case inject.DestinationDiscarded:
		c.source = "source.paused=error"
	case inject.SourceRecovered:
		c.source += ",source.push=cut"
	case inject.DestinationRecovered:
		c.source = "source.push=cut"
	}
	return c
}

// enumerateModes makes the cases that pre-copy's phases do not have, and links that stand still, which take a
// PeerTimeout each: FINELINE_STALLS=all makes all of those, and not some.
func enumerateModes(t *testing.T) []ownershipCase {
	var cases []ownershipCase
	add := func(mode wire.Mode, points []inject.Point, actions ...inject.Action) {
		for _, point := range points {
			for _, action := range actions {
				cases = append(cases, faultAt(t, mode, point, action))
			}
		}
	}
	handOver := []inject.Point{
		inject.SourcePaused, inject.SourceStateSent, inject.SourceCommitSent, inject.SourceDone, inject.SourceFailed,
		inject.DestinationReady, inject.DestinationOwner, inject.DestinationDiscarded,
	}
	add(wire.ModePrecopy, rounds, inject.Kill, inject.Cut, inject.Error)
	add(wire.ModePostcopy, handOver, inject.Kill, inject.Cut)
	add(wire.ModePostcopy, follows, inject.Kill, inject.Cut, inject.Error)
	add(wire.ModeHybrid, append(slices.Clone(rounds), follows...), inject.Kill, inject.Cut)
	stalls := []inject.Point{inject.SourceCommitSent, inject.SourcePush, inject.DestinationComplete}
	if os.Getenv("FINELINE_STALLS") == "all" {
		stalls = append(handOver, follows...)
		add(wire.ModePrecopy, append(handOver, rounds...), inject.Stall)
		add(wire.ModeHybrid, stalls, inject.Stall)
	}
	add(wire.ModePostcopy, stalls, inject.Stall)
	return cases
}

// TestOwnershipInEveryMode is TestOwnership where memory follows the guest.
func TestOwnershipInEveryMode(t *testing.T) {
	hostTierOnly(t)
	vmmtest.NeedKVM(t)
	beside(t, enumerateModes(t), ownershipCase.String, func(t *testing.T, c ownershipCase) {
		// A guest that gets no processor writes nothing, and hybrid's rounds converge: nothing has to follow then.
		for try := 1; !testOwnership(t, c); try++ {
			if try == maxConverged {
				t.Fatalf("converged %d times: %s was not reached", try, c)
			}
		}
	})
}

// ownershipLoad checks each line before it is written again.
const ownershipLoad = "pages=1024 lines=4 rate=20000 pattern=random verify=1 progress=0"

// TestOwnership fails a migration at every phase of either side in every way, and looks who runs.
func TestOwnership(t *testing.T) {
	vmmtest.NeedKVM(t)
	for _, c := range enumerate(t) {
		t.Run(c.String(), func(t *testing.T) { testOwnership(t, c) })
	}
}

const maxConverged = 8

// testOwnership reports whether the case was there: see its caller.
func testOwnership(t *testing.T, c ownershipCase) (reached bool) {
	h := newHouse(t)
	load := ownershipLoad
	if c.mode == wire.ModeHybrid {
		load = strings.Replace(load, "rate=20000", "rate=100000", 1)
	}
	src := h.startDirty("src", c.source, load, "--memory", "64M")
	dst, to := h.startIncoming("dst", c.destination)
	before := src.check()
	h.watchForTwo(src, dst)
	r := request(to)
	r.Local = c.local
	r.MemoryMode = modeName(c.mode)
	if c.mode == wire.ModeHybrid {
		r.DowntimeMS, r.MaxBandwidthBytesPerSecond = 1, 1<<20 // it does not converge
	}
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	show := ignoreProgress
	if c.cancel {
		r.MaxBandwidthBytesPerSecond = 1 << 20
		show = func(p migration.Progress) {
			if p.Round > 0 {
				cancel()
			}
		}
	}
	result, err := src.Migrate(ctx, r, show)
	if c.mayBeReady() && err == nil && result.Status == migration.StatusCompleted {
		c.want, c.source = atDestination, "source.state-sent=cut" // and no further fault was reached
	}
	if c.mode == wire.ModeHybrid && err == nil && result.Status == migration.StatusCompleted && !result.SwitchedToPostcopy {
		verifyOwner(t, src, dst, atDestination, before)
		return false
	}
	if err == nil && result.Status == migration.StatusCompleted && c.want != atDestination {
		t.Errorf("the migration was reported as completed, want the guest at %s", c.want)
	}
	if c.want == nobody && dst.lastPhase() == journal.Owner {
		dst.awaitExit() // its guest runs until it needs memory that has died
	}
	verifyOwner(t, src, dst, c.want, before)
	if strings.Contains(c.source, "=kill") != (exitCode(src.Err()) == -1) && c.want != atSource {
		t.Errorf("source: %v", src.Err())
	}
	return true
}

// verifyOwner waits until the sides have settled and checks everything that the law promises.
func verifyOwner(t *testing.T, src, dst *machine, want owner, before uint64) {
	t.Helper()
	runs, other := src, dst
	switch want {
	case atSource:
		src.awaitPhase(api.Running)
		dst.awaitUnused()
	case atDestination, pausedThere:
		runs, other = dst, src
		src.awaitGone()
		if want == pausedThere {
			dst.awaitPhase(api.Paused)
			if err := dst.API.Resume(dst.h.ctx); err != nil {
				t.Fatalf("the destination cannot resume the guest that it owns: %v", err)
			}
		}
		dst.awaitPhase(api.Running)
	case nobody:
		src.awaitGone()
		dst.awaitUnused()
		checkJournals(t, src, dst)
		return
	}
	// One side has ended, so nothing but the other can run; and what it runs is whole.
	if after := runs.checkRuns(); after < before {
		t.Errorf("the guest went from %d steps back to %d", before, after)
	}
	if code := exitCode(other.Err()); code == 0 && want == atSource && dst.lastPhase() != "" || code > 0 && want != atSource {
		t.Errorf("%s does not run the guest and ended with %d\n%s", other.name, code, other.Stderr())
	}
	if exitCode(other.Err()) >= 0 {
		other.checkLeftovers()
	}
	runs.stop()
	checkJournals(t, src, dst)
}

// checkJournals: after any crash, whoever reads both journals finds at most one owner.
func checkJournals(t *testing.T, src, dst *machine) {
	t.Helper()
	s, d := src.lastPhase(), dst.lastPhase()
	if d == journal.Owner && (s == journal.Failed || s == journal.Cancelled) {
		t.Errorf("the source took the guest back (%s) and the destination owns it", s)
	}
	if s == journal.Done && d != journal.Owner && d != journal.Ended {
		t.Errorf("the source gave the guest away and the destination's journal ends with %q", d)
	}
}

// watchForTwo looks at both sides all the time until the test ends. The source is asked before
// and after the destination, so that a hand-over in between is not taken for two guests.
func (h *house) watchForTwo(src, dst *machine) {
	ctx, cancel := context.WithCancel(h.ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			first, there, second := src.phase(), dst.phase(), src.phase()
			running := api.Running.String()
			if first == running && there == running && second == running {
				h.t.Error("source and destination both say that they run the guest")
				return
			}
			if first == "" && there == "" {
				return // both have ended
			}
		}
	}()
	h.t.Cleanup(func() {
		cancel()
		<-ended
	})
}
