package migration

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/identity"
	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// doubtful leaves a pair on two hosts in doubt: the source was cut off after COMMIT. owner says whether the
// destination had got it.
func doubtful(t *testing.T, owner bool) (*pair, *InDoubtError, <-chan error) {
	t.Helper()
	return newPair(t).doubtful(owner)
}

func (p *pair) doubtful(owner bool) (*pair, *InDoubtError, <-chan error) {
	p.t.Helper()
	p.src.hooks.liveness, p.dst.hooks.liveness = unprovable{}, unprovable{}
	return p.undecided(owner)
}

// undecided sends a guest over a link that breaks at the commit, for good.
func (p *pair) undecided(owner bool) (*pair, *InDoubtError, <-chan error) {
	t := p.t
	t.Helper()
	if owner {
		p.plan(string(inject.DestinationOwner) + "=cut")
	} else {
		p.plan(string(inject.SourceCommitSent) + "=cut")
	}
	p.listenUnix()
	p.opts.ResolveTimeout, p.opts.Streams = 1, 1
	p.opts.hooks = p.src.hooks
	dials, allowed := 0, 1
	if p.opts.Mode.AfterCommit() {
		allowed = 3 // and a stream, and the one for faults
	}
	p.opts.hooks.dial = func(ctx context.Context) (net.Conn, error) {
		if dials++; dials > allowed {
			return nil, errNet
		}
		return p.dial(ctx)
	}
	received := p.receiveInBackground(t.Context())
	result, err := Send(t.Context(), p.src, p.l.Address(), p.opts)
	var doubt *InDoubtError
	if !errors.As(err, &doubt) || result.Status != StatusInDoubt {
		t.Fatalf("%v, status %s; want doubt", err, result.Status)
	}
	return p, doubt, received
}

func TestDoubtStaysPaused(t *testing.T) {
	p, doubt, _ := doubtful(t, false)
	p.verifyLaw(nobody)
	result, err := doubt.Retry(t.Context())
	if !errors.As(err, new(*InDoubtError)) || result.Status != StatusInDoubt {
		t.Errorf("%v, %s", err, result.Status)
	}
	if !strings.Contains(err.Error(), "guest") {
		t.Errorf("%q does not name the machine", err)
	}
	p.verifyLaw(nobody)
}

func TestRetryFinishesTheHandOver(t *testing.T) {
	for _, owner := range []bool{false, true} {
		p, doubt, received := doubtful(t, owner)
		doubt.sender.dial = p.dial
		result, err := doubt.Retry(t.Context())
		if err != nil || result.Status != StatusCompleted || result.DowntimeMS <= 0 {
			t.Errorf("%v, %+v", err, result)
		}
		if err := <-received; err != nil {
			t.Error(err)
		}
		p.verifyLaw(destination)
		// The source knows: nothing is left to listen for.
		<-p.l.ctx.Done()
	}
}

// unheard is a pair whose source is kept, and does not know that its guest runs at the destination.
func unheard(t *testing.T) (*pair, *Standby, *InDoubtError) {
	t.Helper()
	p, st := keptPair(t, wire.ModePrecopy)
	p.plan(string(inject.DestinationOwner) + "=cut")
	p.listenUnix()
	p.opts.ResolveTimeout, p.opts.Streams = 1, 1
	p.opts.hooks = p.src.hooks
	dials := 0
	p.opts.hooks.dial = func(ctx context.Context) (net.Conn, error) {
		if dials++; dials > 2 { // but for the hand-over's and that of checkpoints
			return nil, errNet
		}
		return p.dial(ctx)
	}
	received := p.receiveInBackground(t.Context())
	_, err := Send(t.Context(), p.src, p.l.Address(), p.opts)
	var doubt *InDoubtError
	if !errors.As(err, &doubt) {
		t.Fatalf("%v; want doubt", err)
	}
	if err := <-received; err != nil {
		t.Fatal(err)
	}
	return p, st, doubt
}

// TestEndedUnheard: a destination has passed on a guest whose source is kept, and died, before that source has heard
// that it ran there. The guest is not the source's.
func TestEndedUnheard(t *testing.T) {
	p, _, doubt := unheard(t)
	p.l.EndCheckpoints()
	p.killDestination()
	if _, err := doubt.Retry(t.Context()); !errors.Is(err, ErrDestinationDied) || !p.src.released {
		t.Errorf("%v, released %v", err, p.src.released)
	}
	p.verifyLaw(nobody)
}

// TestDeadOwnerWithoutVerdict: a destination has died with the guest of a source that is kept, and its journal does not say whether the
// guest is to go on: that stays a doubt, which a human can end.
func TestDeadOwnerWithoutVerdict(t *testing.T) {
	p, st, doubt := unheard(t)
	onward := journal.Record{MachineID: "guest", Generation: 2, Side: journal.Source, Phase: journal.Precopy}
	if err := p.dst.journal.Append(onward); err != nil {
		t.Fatal(err)
	}
	p.killDestination()
	guard := time.AfterFunc(hangGuard/4, p.giveUp) // of a Retry that waits for a human itself
	defer guard.Stop()
	if _, err := doubt.Retry(t.Context()); !errors.As(err, &doubt) || !strings.Contains(err.Error(), "passed the guest on") {
		t.Fatalf("%v; want doubt", err)
	}
	p.verifyLaw(nobody)
	if _, err := ResolveInDoubt(doubt, GuestIsThere); err != nil {
		t.Fatal(err)
	}
	ended := p.wait(st)
	if err := st.TakeOver(); err != nil { // who kept it may still change his mind
		t.Fatal(err)
	}
	var resumed *ResumedError
	if err := <-ended; !errors.As(err, &resumed) || !resumed.ByHand {
		t.Error(err)
	}
	p.verifyLaw(source)
}

// TestServesAfterDoubt: memory that follows the guest after a doubt is brought up to date against what went in the rounds before it.
// From its beginning on everybody sees that the guest has left, though there is no connection yet.
func TestServesAfterDoubt(t *testing.T) {
	for name, end := range map[string]func(*InDoubtError) (*Result, error){
		"asked again":     func(e *InDoubtError) (*Result, error) { return e.Retry(t.Context()) },
		"decided by hand": func(e *InDoubtError) (*Result, error) { return ResolveInDoubt(e, GuestIsThere) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.neverConverge()
			p.opts.Mode, p.opts.Granularity = wire.ModeHybrid, GranularityLine
			var shown []string
			store := p.opts.Progress
			p.opts.Progress = func(at Progress) {
				shown = append(shown, at.Phase)
				if at.Phase == "precopy" {
					store(at)
				}
			}
			// In a page that the guest never writes to.
			r := p.src.mem.Regions()[1]
			last := r.Base + memory.GPA(r.SizeBytes-memory.PageSize)
			word := func(value uint64) {
				if err := p.src.mem.StoreUint64(last+2048, value); err != nil {
					t.Error(err)
				}
			}
			word(1)
			p.src.onPause = func() error {
				word(0) // the destination has them from a round
				return nil
			}
			_, doubt, received := p.doubtful(true)
			shown = nil
			doubt.sender.dial = p.dial
			result, err := end(doubt)
			if err != nil || result.Status != StatusCompleted {
				t.Errorf("%v, %+v", err, result)
			}
			if err := errors.Join(<-received, <-p.complete); err != nil {
				t.Error(err)
			}
			p.verifyLaw(destination)
			p.verifyGuest()
			if i := slices.Index(shown, PhaseReconnecting); i < 0 || slices.Index(shown, PhasePostcopy) < i {
				t.Errorf("shown: %q", shown)
			}
		})
	}
}

func TestDecisions(t *testing.T) {
	t.Run("here", func(t *testing.T) {
		p, doubt, received := doubtful(t, false)
		if err := p.l.Close(); err != nil { // what the human looked at, and stopped
			t.Error(err)
		}
		<-received
		if _, err := ResolveInDoubt(doubt, GuestIsHere); err != nil {
			t.Error(err)
		}
		p.verifyLaw(source)
		phase, _ := lastPhase(p.src.journal.Records("guest", 1), "guest", 1, journal.Source)
		if phase != journal.Failed {
			t.Errorf("journalled %q", phase)
		}
	})
	t.Run("there", func(t *testing.T) {
		p, doubt, received := doubtful(t, true)
		if err := <-received; err != nil {
			t.Error(err)
		}
		result, err := ResolveInDoubt(doubt, GuestIsThere)
		if err != nil || result.Status != StatusCompleted {
			t.Errorf("%v, %+v", err, result)
		}
		if !p.src.released {
			t.Error("the source was not released")
		}
		p.verifyLaw(destination)
	})
	t.Run("nonsense", func(t *testing.T) {
		_, doubt, _ := doubtful(t, false)
		if _, err := ResolveInDoubt(doubt, 0); err == nil {
			t.Error("decision 0 was carried out")
		}
	})
}

// TestDecisionsAtTheDestination: the source is gone without proof, and a human knows more.
func TestDecisionsAtTheDestination(t *testing.T) {
	for _, decision := range []Decision{GuestIsHere, GuestIsThere} {
		p := newPair(t)
		p.dst.hooks.liveness = unprovable{}
		p.plan(string(inject.SourceStateSent) + "=kill")
		// The decision is made while the session is still telling that it needs one, as fast as no client is.
		decided := make(chan error, 1)
		p.inDoubt = func(error) {
			go func() { decided <- p.l.ResolveInDoubt(decision) }()
			for range 1000 {
				runtime.Gosched()
			}
		}
		p.listenUnix()
		if err := p.l.ResolveInDoubt(decision); err == nil {
			t.Error("decided where nothing is in doubt")
		}
		p.opts.hooks = p.src.hooks
		p.opts.hooks.dial = p.dial
		received := p.receiveInBackground(t.Context())
		if _, err := Send(t.Context(), p.src, p.l.Address(), p.opts); err == nil {
			t.Error("a dead source sent a guest")
		}
		p.verifyLaw(nobody)
		if err := <-decided; err != nil {
			t.Fatal(err)
		}
		err := <-received
		if decision == GuestIsHere {
			if err != nil {
				t.Error(err)
			}
			p.verifyLaw(destination)
		} else {
			if !isDiscarded(err) {
				t.Errorf("received: %v", err)
			}
			p.verifyLaw(nobody)
		}
	}
}

// TestKeepWhereTheOtherLives: a human's word does not count against a process that can be seen. When that is dead its journal decides.
func TestKeepWhereTheOtherLives(t *testing.T) {
	p, doubt, _ := newPair(t).undecided(false)
	if _, err := ResolveInDoubt(doubt, GuestIsHere); err == nil || !strings.Contains(err.Error(), "the destination's process") {
		t.Errorf("keep at the source: %v", err)
	}
	var err error
	eventually(t, "the destination asks for a decision", func() bool {
		err = p.l.ResolveInDoubt(GuestIsHere)
		return !errors.Is(err, errNoDoubt)
	})
	if err == nil || !strings.Contains(err.Error(), "the source's process") {
		t.Errorf("keep at the destination: %v", err)
	}
	p.verifyLaw(nobody)
	p.killDestination()
	if _, err := doubt.Retry(t.Context()); errors.As(err, new(*InDoubtError)) {
		t.Error(err)
	}
	p.verifyLaw(source)
}

// TestAnotherProcessAnswers: whoever listens at the destination's address later knows nothing about the
// process that may be running the guest.
func TestAnotherProcessAnswers(t *testing.T) {
	p, doubt, received := doubtful(t, true)
	if err := <-received; err != nil {
		t.Error(err)
	}
	impostor := newPair(t)
	impostor.dst.process.PID = 303
	impostor.listen("unix:" + filepath.Join(t.TempDir(), "i"))
	doubt.sender.dial = impostor.l.Address().dial
	if _, err := doubt.Retry(t.Context()); !errors.Is(err, errOtherProcess) || !errors.As(err, new(*InDoubtError)) {
		t.Errorf("%v, want doubt because of another process", err)
	}
	p.verifyLaw(destination)
}

// TestJournalsOfTheDead holds rule 3 and rule 5 for every journal that a dead peer can leave.
func TestJournalsOfTheDead(t *testing.T) {
	write := func(t *testing.T, side journal.Side, phases ...journal.Phase) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "journal")
		j, err := journal.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		for _, phase := range phases {
			if err := j.Append(journal.Record{MachineID: "guest", Generation: 1, Side: side, Phase: phase}); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	dead := make(chan struct{})
	close(dead)
	for _, tc := range []struct {
		phases  []journal.Phase
		verdict wire.Fate // 0: no answer
	}{
		{[]journal.Phase{journal.Accepted, journal.Receiving}, wire.FateDiscarded},
		{[]journal.Phase{journal.Accepted, journal.Receiving, journal.Ready}, wire.FateDiscarded},
		{[]journal.Phase{journal.Accepted, journal.Ready, journal.Owner}, wire.FateOwner},
		{[]journal.Phase{journal.Accepted, journal.Ready, journal.Owner, journal.Discarded}, wire.FateDiscarded},
		{nil, 0},
	} {
		s := &sender{watch: fakeWatch(dead), generation: 1, opts: SendOptions{MachineID: "guest"}}
		s.peer = &wire.Hello{Journal: write(t, journal.Destination, tc.phases...)}
		v, err := s.ask(t.Context(), wire.Reason{})
		if (err != nil) != (tc.verdict == 0) || err == nil && v.Fate != tc.verdict {
			t.Errorf("destination %v: %v, %v", tc.phases, v, err)
		}
	}
	for _, tc := range []struct {
		last  journal.Phase
		takes bool
		back  bool
	}{
		{journal.Paused, true, false},
		{journal.StateSent, true, false},
		{journal.CommitSent, true, false},
		{journal.Done, true, false},
		{journal.Cancelled, false, true},
		{journal.Failed, false, true},
		{journal.Precopy, false, false},
		{journal.Preflight, false, false},
	} {
		s := &session{source: &wire.Hello{MachineID: "guest", Generation: 1, Journal: write(t, journal.Source, tc.last)}}
		err := s.judgeTheDead()
		if (err == nil) != tc.takes || errors.Is(err, errTakenBack) != tc.back {
			t.Errorf("source %s: %v", tc.last, err)
		}
	}
	s := &session{source: &wire.Hello{MachineID: "guest", Generation: 2, Journal: write(t, journal.Source, journal.StateSent)}}
	if err := s.judgeTheDead(); err == nil {
		t.Error("took over by the journal of another generation")
	}
	s.source.Journal = filepath.Join(t.TempDir(), "absent")
	if err := s.judgeTheDead(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("took over without a journal: %v", err)
	}
}

// TestStaleGeneration: a hand-over that the destination's journal has seen is not begun again.
func TestStaleGeneration(t *testing.T) {
	p := newPair(t)
	if err := p.dst.journal.Append(journal.Record{MachineID: "guest", Generation: 4, Side: journal.Destination, Phase: journal.Owner}); err != nil {
		t.Fatal(err)
	}
	out := p.migrate()
	var refused *RefusedError
	if !errors.As(out.sendErr, &refused) || p.src.pauses != 0 {
		t.Errorf("%v after %d pauses", out.sendErr, p.src.pauses)
	}
	p.verifyLaw(source)
}

// TestBusy: one machine at a time.
func TestBusy(t *testing.T) {
	p := newPair(t)
	p.listenUnix()
	second := make(chan error, 1)
	p.dst.onPrepare = func() error {
		other := newMachine(t, &world{}, "other", testPages)
		opts := SendOptions{MachineID: "other", Journal: journal.New("/j", nullSink{}, nil), hooks: p.src.hooks}
		_, err := Send(t.Context(), other, p.l.Address(), opts)
		second <- err
		return nil
	}
	if out := p.migrate(); out.sendErr != nil {
		t.Error(out.sendErr)
	}
	var refused *RefusedError
	if err := <-second; !errors.As(err, &refused) {
		t.Errorf("second: %v, want a refusal", err)
	}
	p.verifyLaw(destination)
}

// TestOptions: what is missing or wrong is said before anything happens.
func TestOptions(t *testing.T) {
	p := newPair(t)
	for name, opts := range map[string]SendOptions{
		"no machine":  {Journal: p.src.journal},
		"no journal":  {MachineID: "guest"},
		"long id":     {MachineID: strings.Repeat("x", wire.MaxMachineIDBytes+1), Journal: p.src.journal},
		"bad timeout": {MachineID: "guest", Journal: p.src.journal, TimeoutStrategy: "hope"},
	} {
		if r, err := Send(t.Context(), p.src, Address{}, opts); err == nil || r.Status != StatusFailed {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	if _, err := newListener(closedListener{}, ListenOptions{}); err == nil {
		t.Error("a listener without a journal")
	}
	t.Setenv(inject.EnvVar, "nonsense")
	opts := SendOptions{MachineID: "guest", Journal: p.src.journal}
	if _, err := Send(t.Context(), p.src, Address{}, opts); err == nil {
		t.Error("a nonsensical fault plan was accepted")
	}
	p.verifyLaw(source)
}

// TestRealIdentity runs with this host's clock, names and proofs: one process on both ends.
func TestRealIdentity(t *testing.T) {
	self, err := identity.Self()
	if err != nil {
		t.Fatal(err)
	}
	p := newPair(t)
	for _, s := range []*side{p.src, p.dst} {
		s.hooks.liveness, s.hooks.self = identity.Host{}, &self
	}
	out := p.migrate()
	if out.sendErr != nil || out.sent.DowntimeMeasured != MeasuredByClock {
		t.Errorf("%v, %+v", out.sendErr, out.sent)
	}
	p.verifyLaw(destination)
}
