package postcopy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fineline-vmm/fineline/memory"
)

// Memory is the guest memory that a Pager fills: *memory.Demand. All methods are safe for concurrent use.
type Memory interface {
	// Next returns an absent page that somebody waits for, each once until it is filled. It waits until there is one.
	Next(ctx context.Context) (memory.GPA, error)
	// Tell has fn called with what Next would return, in the goroutine that has learned of it and by several at a time. It may
	// do nothing. With nil Next is asked again, and no call is under way when it returns.
	Tell(fn func(memory.GPA))
	// FillRun lends those of up to memory.MaxFillRun pages in a row that are absent, with their old content, to fn for writing,
	// in order, and then makes them present together. Bit i of filled: page i was absent.
	FillRun(gpa memory.GPA, count int, fn func(i int, page []byte) error) (filled uint64, err error)
	Has(gpa memory.GPA) bool // it is absent
	Len() uint64             // how many are
	Absent() *memory.PageSet
}

// PagerOptions configures NewPager. The zero value is good.
type PagerOptions struct {
	// Guesser says what to ask for beside what is missed; nil: nothing.
	Guesser *Guesser
	// PeerTimeout is how long a request may go unanswered, and all connections bring nothing while pages are
	// absent; 0: DefaultPeerTimeout.
	PeerTimeout time.Duration
}

// Pager is the destination's half: it asks for the pages that somebody waits for and stores what arrives. Stats
// and Absent may be called at any time; one Run runs at a time.
type Pager struct {
	mem    Memory
	opts   PagerOptions
	misses *misses
	guess  *Guesser   // nil: none
	lines  LineMemory // mem, if lines are waited for; else nil, as is lineMisses
	stats  pagerCounters

	lineMisses *lineMisses
}

// NewPager returns a pager of the absent pages of mem, and of their lines if it is a LineMemory.
func NewPager(mem Memory, opts PagerOptions) *Pager {
	if opts.PeerTimeout == 0 {
		opts.PeerTimeout = DefaultPeerTimeout
	}
	p := &Pager{mem: mem, opts: opts, misses: newMisses(), guess: opts.Guesser}
	if lines, ok := mem.(LineMemory); ok {
		p.lines, p.lineMisses = lines, newLineMisses()
	}
	return p
}

// Absent returns the pages that are absent now: what the source is sent before a Run over new connections, and
// gives to Server.Reset. Pages may arrive only in Run, so between two Runs it stays as it is.
func (p *Pager) Absent() *memory.PageSet { return p.mem.Absent() }

// errComplete ends a run's goroutines when nothing is absent.
var errComplete = errors.New("every page is there")

// Run fetches pages until none is absent, and returns nil then. On an error (of a connection:
// ErrConnectionLost, ErrPeerSilent or wire.ErrProtocol; of the memory; the cause of ctx) everything that
// is in place stays, and a new Run with new connections goes on, with the requests that were not answered first.
// Their time is counted from then, since the guest is paused in between.
func (p *Pager) Run(ctx context.Context, fault Conn, background []Conn) error {
	if p.mem.Len() == 0 {
		return nil
	}
	r := newRun(p, ctx, fault, background)
	r.start()
	err := r.wait()
	if errors.Is(err, errComplete) {
		return nil
	}
	return err
}

// Stats may be called at any time.
func (p *Pager) Stats() PagerStats {
	c := &p.stats
	var lines LineStats
	if p.lines != nil {
		lines = LineStats{
			Faults: c.lineFaults.Load(), Filled: c.lineFills.Load(), Late: c.linesLate.Load(), Bytes: c.lineBytes.Load(),
			PagesRest: c.rest.Load(), Latency: p.lineMisses.waits.summary(), RestLatency: p.lineMisses.rests.summary(),
		}
	}
	return PagerStats{
		Lines:   lines,
		Latency: p.misses.summary(), AskedLatency: p.misses.askedSummary(),
		Faults: c.faults.Load(), FaultsLocal: c.local.Load(), FaultsCaught: c.caught.Load(), FaultsStocked: c.stocked.Load(),
		PagesFault: c.fault.Load(), PagesPredicted: c.predicted.Load(), PagesBackground: c.background.Load(),
		PagesLate: c.late.Load(), PredictedAsked: c.predictedAsked.Load(),
		PredictedRight: c.predictedRight.Load(), PredictedWrong: c.predictedWrong.Load(), Bytes: c.bytes.Load(),
	}
}

// silence is the error of a peer that did not do its part for the timeout.
func (p *Pager) silence(format string, args ...any) error {
	return fmt.Errorf("%w: %s for %v", ErrPeerSilent, fmt.Sprintf(format, args...), p.opts.PeerTimeout)
}
