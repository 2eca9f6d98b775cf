package migration

import (
	"sync"
	"time"

	"github.com/fineline-vmm/fineline/migration/wire"
)

// Phases of Progress: those of Result.Phases, of which precopy is named here, and others.
const (
	PhasePreflight    = "preflight"
	PhasePrecopy      = "precopy"
	PhaseSettling     = "settling"     // the connection is lost after the commit was sent: the destination is asked whether it has the guest, which is paused
	PhasePostcopy     = "postcopy"     // the guest runs at the destination, and its memory follows it
	PhaseReconnecting = "reconnecting" // so it was, but the connection is lost and the guest paused
)

// Progress is one report on a migration under way. Its JSON is what the API streams: fields are added, never
// changed.
type Progress struct {
	Phase          string  `json:"phase"` // one of Result.Phases, or of the above
	Mode           string  `json:"mode"`
	Round          int     `json:"round"` // from 1; 0 before the first
	RoundPages     uint64  `json:"round_pages"`
	SentPages      uint64  `json:"sent_pages"`      // of this round
	RemainingPages uint64  `json:"remaining_pages"` // of this round
	BytesSent      uint64  `json:"bytes_sent"`      // since the start
	RateBytesPerS  float64 `json:"rate_bytes_per_s"`
	ElapsedMS      float64 `json:"elapsed_ms"`

	// What the guest writes, see Round: pages in the newest finished round, lines in the one before it.
	DirtyPagesPerS  float64 `json:"dirty_pages_per_s"`
	DirtyLinesPerS  float64 `json:"dirty_lines_per_s"`
	ThrottlePercent int     `json:"throttle_percent"` // of its time, the guest is held back

	// Post-copy.
	PostcopyPages  uint64 `json:"postcopy_pages,omitempty"`  // that were to follow the guest
	AbsentPages    uint64 `json:"absent_pages,omitempty"`    // of these, not sent yet
	RecoveredTimes int    `json:"recovered_times,omitempty"` // connections lost and replaced
	Lost           string `json:"lost,omitempty"`            // why there is no connection; with PhaseReconnecting

	// LeftMS is how long it will take from now on; absent when that cannot be said, see estimate. RoundLeftMS is what of
	// it this round takes.
	LeftMS      *float64 `json:"left_ms,omitempty"`
	RoundLeftMS *float64 `json:"round_left_ms,omitempty"`
}

// progressInterval bounds how often Progress is called while a round is under way.
const progressInterval = 50 * time.Millisecond

// reporter is what Progress needs to know besides the result.
type reporter struct {
	showing sync.Mutex    // the writers of all streams report
	last    time.Duration // when Progress was called last
	began   time.Duration // of the round under way
}

func (r *reporter) roundBegan(at time.Duration) {
	r.showing.Lock()
	defer r.showing.Unlock()
	r.began = at
}

// report shows the progress, at once or when the last report is old enough.
func (s *sender) report(now bool) {
	if s.opts.Progress == nil {
		return
	}
	s.reporter.showing.Lock()
	defer s.reporter.showing.Unlock()
	at := s.clock.Now()
	if !now && at-s.reporter.last < progressInterval {
		return
	}
	s.reporter.last = at
	s.opts.Progress(s.progress(at))
}

// progress is the picture at an instant.
func (s *sender) progress(at time.Duration) Progress {
	total := s.dirty.Len()
	p := Progress{
		Phase: s.time.now.String(), Mode: string(s.opts.Mode), Round: len(s.result.Rounds),
		BytesSent: s.bytesSent(), RateBytesPerS: s.rate(), ElapsedMS: milliseconds(s.time.elapsed()),
		ThrottlePercent: s.result.ThrottlePercent,
	}
	if n := len(s.result.Rounds); n > 0 {
		p.DirtyPagesPerS = s.result.Rounds[n-1].DirtyPagesPerS
		if n > 1 {
			p.DirtyLinesPerS = s.result.Rounds[n-2].DirtyLinesPerS
		}
	}
	switch {
	case s.serving.began != 0 && s.result.Status == "":
		s.serving.show(&p, at, s.server.Left())
	case s.settling:
		p.Phase = PhaseSettling
	case s.time.now == stagePrecopy && (s.opts.Mode == wire.ModePrecopy || s.opts.Mode == wire.ModeHybrid):
		p.Round++
		p.RoundPages = total
		p.SentPages = min(s.gathered.Load(), total)
		p.RemainingPages = total - p.SentPages
		round := Round{Pages: total, took: at - s.reporter.began}
		p.RoundLeftMS, p.LeftMS = estimate(s.opts.Rule, s.outlook(), round, p.SentPages)
	}
	return p
}

// rate is the bandwidth of the finished rounds or, before there is one, of all that was sent.
func (s *sender) rate() float64 {
	if finished := bandwidth(s.result.Rounds); finished > 0 {
		return finished
	}
	return float64(s.bytesSent()) / max(s.time.elapsed(), time.Millisecond).Seconds()
}

// estimateAfterPages: a time taken from fewer pages is no measurement.
const estimateAfterPages = 256

// estimate says how long a round under way will take from now on, and how long all will, in milliseconds. round has the
// pages to look at and the time since it began, and sent of them are done.
//
// The rest of the round takes as long a page as the round has taken so far. Every further round leaves the same share
// of what it looked at as the last finished one did, and takes the time a page that Rule reckons with; the rounds end when
// Rule says that they do, and the downtime follows. Nothing is said of what comes after the first round, in which
// nobody knows yet how much the guest writes, nor when the rounds will not converge by that account: then the rule
// slows the guest down, forces or switches, and when is not foreseen.
func estimate(rule Rule, look outlook, round Round, sent uint64) (roundLeft, left *float64) {
	if sent == 0 || sent < estimateAfterPages && sent < round.Pages {
		return nil, nil
	}
	rest := time.Duration(float64(round.took) * float64(round.Pages-sent) / float64(sent))
	roundLeft = inMilliseconds(rest)
	if len(look.rounds) == 0 {
		return roundLeft, nil
	}
	last := look.rounds[len(look.rounds)-1]
	share := float64(last.RemainingPages) / float64(max(last.lookedAt(), 1))
	round.took += rest
	look.rounds = append([]Round(nil), look.rounds...)
	for {
		round.RemainingPages = uint64(share * float64(round.Pages))
		look.rounds = append(look.rounds, round)
		look.remainingPages = round.RemainingPages
		switch rule.decide(look) {
		case stopConverged:
			return roundLeft, inMilliseconds(rest + look.downtime())
		case continueRounds:
		default:
			return roundLeft, nil
		}
		took := look.copying()
		rest += took
		round = Round{Pages: look.remainingPages, took: took}
	}
}

func inMilliseconds(d time.Duration) *float64 {
	ms := milliseconds(d)
	return &ms
}

// perSecond is a rate.
func perSecond(n uint64, took time.Duration) float64 {
	if took <= 0 {
		return 0
	}
	return float64(n) / took.Seconds()
}

// dirtyLines completes the newest finished round with the lines that the one after it sent.
func (s *sender) dirtyLines(sent uint64) {
	n := len(s.result.Rounds)
	if n == 0 || s.opts.Granularity != GranularityLine {
		return
	}
	last := &s.result.Rounds[n-1]
	if last.Paused || last.RemainingPages == 0 { // what follows was written later
		return
	}
	last.DirtyLinesPerS = perSecond(sent, last.took)
}

// lookedAt is how many pages a round had.
func (r *Round) lookedAt() uint64 { return r.Pages + r.CleanPages + r.ZeroPages }

// serving is what Progress needs to know of the time after the commit. One goroutine at a time writes to it, while none reports.
type serving struct {
	began     time.Duration // by the clock; 0: not yet
	pages     uint64        // that were to follow the guest
	since     time.Duration // when the present connections began
	sinceLeft uint64        // pages that were left then
	recovered int
	lost      error // why there is no connection
}

// begin is the first call: so many pages are to follow the guest.
func (v *serving) begin(at time.Duration, pages uint64) { v.began, v.pages = at, pages }

// connected begins to count over new connections.
func (v *serving) connected(at time.Duration, left uint64) {
	v.since, v.sinceLeft, v.lost = at, left, nil
}

// show fills in the picture. What is left takes as long a page as the pages took that the present connections have
// carried: they never change, so this always ends. When the last is sent the destination may still store some, and how long
// that takes is not known here.
func (v *serving) show(p *Progress, at time.Duration, left uint64) {
	p.PostcopyPages, p.AbsentPages, p.RecoveredTimes = v.pages, left, v.recovered
	p.Phase = PhasePostcopy
	if v.lost != nil {
		p.Phase, p.Lost = PhaseReconnecting, v.lost.Error()
		return
	}
	if done := v.sinceLeft - min(left, v.sinceLeft); left > 0 && done >= estimateAfterPages {
		p.LeftMS = inMilliseconds(time.Duration(float64(at-v.since) * float64(left) / float64(done)))
	}
}
