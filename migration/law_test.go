package migration

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// Who may run the guest after one fault. Nobody: it died with the process that owned it, or with the one that had
// its memory.
const (
	nobody      = ""
	source      = "source"
	destination = "destination"
)

// lawfulOwners says who may run the guest after one fault, by the law and not by the code.
func lawfulOwners(mode wire.Mode, point inject.Point, action inject.Action) []string {
	if action == inject.Kill {
		return []string{lawfulHeir(mode, point)}
	}
	switch point {
	case inject.SourcePreflight, inject.SourcePrecopy, inject.SourceRound, inject.SourceBatch, inject.SourcePaused, inject.SourceAbsent,
		inject.SourceCancelled, inject.SourceFailed,
		inject.DestinationAccepted, inject.DestinationReceiving, inject.DestinationRound, inject.DestinationAbsent,
		inject.DestinationReady, inject.DestinationDiscarded:
		return []string{source}
	case inject.SourceStateSent:
		if action == inject.Error {
			return []string{source}
		}
		return []string{source, destination} // READY had arrived before the link broke, or not
	case inject.DestinationOwner:
		if action == inject.Error {
			return []string{nobody} // the owner keeps it paused
		}
	case inject.SourceCommitSent, inject.SourceServing, inject.SourcePush, inject.SourceRecovered, inject.SourceDone,
		inject.DestinationPaging, inject.DestinationPage, inject.DestinationRecovered, inject.DestinationComplete:
	default:
		panic("no law for " + point)
	}
	return []string{destination}
}

// lawfulHeir says who has the guest when the side that passes the point dies there.
func lawfulHeir(mode wire.Mode, point inject.Point) string {
	switch point {
	case inject.SourceDone:
		return destination
	case inject.SourceStateSent, inject.SourceCommitSent:
		if !mode.AfterCommit() {
			return destination // it holds everything, and the source is proved dead
		}
		return nobody // a guest without its memory is none
	case inject.DestinationAccepted, inject.DestinationReceiving, inject.DestinationRound, inject.DestinationAbsent,
		inject.DestinationReady, inject.DestinationDiscarded:
		return source
	}
	// The source before it had sent all, or after it had taken the guest back; the destination after the commit.
	return nobody
}

// lawCase is one fault of one migration.
type lawCase struct {
	mode    wire.Mode
	point   inject.Point
	passing int
	action  inject.Action
}

func (c lawCase) String() string {
	return fmt.Sprintf("%s/%s#%d=%s", c.mode, c.point, c.passing, c.action)
}

// onlyWith are the points that not every mode has.
var onlyWith = map[inject.Point][]wire.Mode{
	inject.SourceRound:          {wire.ModePrecopy, wire.ModeHybrid},
	inject.SourceBatch:          {wire.ModePrecopy, wire.ModeHybrid},
	inject.DestinationRound:     {wire.ModePrecopy, wire.ModeHybrid},
	inject.SourceAbsent:         {wire.ModePostcopy, wire.ModeHybrid},
	inject.SourceServing:        {wire.ModePostcopy, wire.ModeHybrid},
	inject.SourcePush:           {wire.ModePostcopy, wire.ModeHybrid},
	inject.SourceRecovered:      {wire.ModePostcopy, wire.ModeHybrid},
	inject.DestinationAbsent:    {wire.ModePostcopy, wire.ModeHybrid},
	inject.DestinationPaging:    {wire.ModePostcopy, wire.ModeHybrid},
	inject.DestinationPage:      {wire.ModePostcopy, wire.ModeHybrid},
	inject.DestinationRecovered: {wire.ModePostcopy, wire.ModeHybrid},
	inject.DestinationComplete:  {wire.ModePostcopy, wire.ModeHybrid},
}

// laterPassings are those beside the first one, as rounds and pages come many times.
var laterPassings = map[wire.Mode]map[inject.Point][]int{
	wire.ModePrecopy: {inject.SourceRound: {2}, inject.DestinationRound: {2, 3}, inject.SourceBatch: {2, 4}},
	// The fake guest has some 170 pages: after the first, half of them, the last but one.
	wire.ModePostcopy: {inject.SourcePush: {2, 6}, inject.DestinationPage: {2, 85, 165}},
	wire.ModeHybrid:   {inject.SourceRound: {2}, inject.DestinationRound: {2}, inject.SourceBatch: {2}, inject.DestinationPage: {2}},
}

// lawCases enumerates every fault at every point of every mode.
func lawCases() []lawCase {
	var all []lawCase
	for _, mode := range []wire.Mode{wire.ModePrecopy, wire.ModePostcopy, wire.ModeHybrid} {
		for _, point := range inject.Points() {
			if modes := onlyWith[point]; modes != nil && !slices.Contains(modes, mode) {
				continue
			}
			for _, passing := range append([]int{1}, laterPassings[mode][point]...) {
				for _, action := range inject.Actions() {
					all = append(all, lawCase{mode, point, passing, action})
				}
			}
		}
	}
	return all
}

// plan is the case's fault, and those without which its point is not reached.
func (c lawCase) plan() string {
	plan := fmt.Sprintf("%s#%d=%s", c.point, c.passing, c.action)
	switch c.point {
	case inject.SourceFailed, inject.DestinationDiscarded:
		plan += "," + string(inject.DestinationReady) + "=error" // the latest failure there is
	case inject.SourceRecovered, inject.DestinationRecovered:
		plan += "," + string(inject.SourcePush) + "=cut"
	}
	return plan
}

// TestLawAtEveryPoint fails one migration at each point, in each way, in each mode. Most cases wait for timeouts,
// so more of them run beside each other than there are processors.
func TestLawAtEveryPoint(t *testing.T) {
	eachLawCase(t, lawCases(), func(t *testing.T, c lawCase) {
		newPair(t).verifyCase(c, "unix:"+filepath.Join(t.TempDir(), "s"))
	})
}

func eachLawCase(t *testing.T, cases []lawCase, verify func(*testing.T, lawCase)) {
	const beside = 16
	slots := make(chan struct{}, beside)
	var running sync.WaitGroup
	for _, c := range cases {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			t.Run(c.String(), func(t *testing.T) { verify(t, c) })
		})
	}
	running.Wait()
}

// verifyCase migrates to the address and looks at what the fault has made of it.
func (p *pair) verifyCase(c lawCase, address string) {
	t := p.t
	t.Helper()
	p.opts.Mode = c.mode
	p.opts.PeerTimeout = time.Second // by which the sides notice a link that stands still
	if c.point == inject.DestinationAccepted {
		p.opts.Timeout = 2 * time.Second // building a machine may take long: nothing else ends that wait
	}
	if p.opts.Mode != wire.ModeLocal {
		p.neverConverge()
	}
	p.failAt(c)
	p.listen(address)
	out := p.migrate()
	if out.received && out.gotErr == nil && c.mode.AfterCommit() && !p.dst.isGone() {
		if err := <-p.complete; err == nil {
			p.verifyGuest()
		} else if !p.src.isGone() {
			t.Errorf("memory is lost though the source lives: %v", err)
		}
	}
	p.verifyLaw(lawfulOwners(c.mode, c.point, c.action)...)
	p.verifyReports(out)
	if p.passed(c.point) < c.passing {
		t.Errorf("%s was passed %d times only", c.point, p.passed(c.point))
	}
	if t.Failed() {
		t.Logf("send: %v; receive: %v", out.sendErr, out.gotErr)
	}
}

// passed is how often the side that the point is of has passed it.
func (p *pair) passed(point inject.Point) int {
	if strings.HasPrefix(string(point), source) {
		return p.src.hooks.plan.Passed(point)
	}
	return p.dst.hooks.plan.Passed(point)
}

// failAt has the migration pass the point, and fail there.
func (p *pair) failAt(c lawCase) {
	p.t.Helper()
	if c.point == inject.SourceCancelled {
		ctx, cancel := context.WithCancel(p.ctx)
		p.t.Cleanup(cancel)
		p.ctx = ctx
		p.dst.onRestore = func() error {
			cancel()
			return nil
		}
	}
	p.plan(c.plan())
}

// verifyReports checks that what each living side reports is what is.
func (p *pair) verifyReports(out outcomes) {
	p.t.Helper()
	if !p.src.isGone() {
		var doubt *InDoubtError
		gaveAway := out.sendErr == nil || errors.Is(out.sendErr, ErrNotStarted) || errors.Is(out.sendErr, ErrDestinationDied)
		if gaveAway != p.src.released {
			p.t.Errorf("send: %v, released %v", out.sendErr, p.src.released)
		}
		if errors.As(out.sendErr, &doubt) {
			p.t.Errorf("in doubt after one fault: %v", out.sendErr)
		}
	}
	if !p.dst.isGone() {
		if owner := out.gotErr == nil || errors.Is(out.gotErr, ErrNotStarted); owner == isDiscarded(out.gotErr) {
			p.t.Errorf("receive: %v", out.gotErr)
		}
		if !out.received {
			p.t.Error("the destination did not end by itself")
		}
	}
}
