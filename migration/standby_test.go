package migration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/migration/wire"
)

var modes = []wire.Mode{wire.ModePrecopy, wire.ModePostcopy, wire.ModeHybrid}

// keepSource has the source kept, with a checkpoint every millisecond.
func (p *pair) keepSource() *Standby {
	p.t.Helper()
	st, err := NewStandby(time.Millisecond)
	if err != nil {
		p.t.Fatal(err)
	}
	p.opts.Standby = st
	return st
}

// keptPair is a pair that will move in the mode, with a part of memory after the guest if the mode has that.
func keptPair(t *testing.T, mode wire.Mode) (*pair, *Standby) {
	t.Helper()
	p := newPair(t)
	p.opts.Mode = mode
	if mode.AfterCommit() {
		p.neverConverge()
		p.opts.PeerTimeout = time.Second // that a lost COMPLETE is asked for
	}
	return p, p.keepSource()
}

// wait stands by in the background.
func (p *pair) wait(st *Standby) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- st.Wait(p.ctx) }()
	return ended
}

// keepsFrom migrates, and stands by in the background with that checkpoint or a later one.
func (p *pair) keepsFrom(st *Standby, number uint64) <-chan error {
	p.t.Helper()
	if out := p.migrate(); out.sendErr != nil {
		p.t.Fatal(out.sendErr)
	}
	ended := p.wait(st)
	p.awaitCheckpoint(st, number)
	return ended
}

// eventually waits for what other goroutines make true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func (p *pair) awaitCheckpoint(st *Standby, number uint64) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("the source has checkpoint %d", number), func() bool { return st.Status().Checkpoint >= number })
}

// killDestination is SIGKILL, and its proof.
func (p *pair) killDestination() {
	p.dst.vanish()
	close(p.deaths.of(p.dst.process.PID))
}

// wantResumed: the source goes on with the guest, which is right.
func (p *pair) wantResumed(ended <-chan error) *ResumedError {
	p.t.Helper()
	var resumed *ResumedError
	if err := <-ended; !errors.As(err, &resumed) {
		p.t.Fatal(err)
	}
	p.verifyLaw(source)
	p.verifyMachine(p.src.machine)
	return resumed
}

func (p *pair) sourcePhase() journal.Phase {
	phase, _ := lastPhase(p.src.journal.Records("guest", 1), "guest", 1, journal.Source)
	return phase
}

// TestAskedWhileServing: while memory moves, whoever wants the guest here, or the source to let go, is told at once that it can't be.
func TestAskedWhileServing(t *testing.T) {
	p, st := keptPair(t, wire.ModePostcopy)
	p.opts.MaxBandwidthBytesPerS = 256 << 10
	took, released := make(chan error, 1), make(chan error, 1)
	var once sync.Once
	p.opts.Progress = func(at Progress) {
		if at.Phase != PhasePostcopy {
			return
		}
		once.Do(func() {
			go func() { took <- st.TakeOver() }()
			go func() { released <- st.Release() }()
		})
	}
	out := p.migrate()
	if out.sendErr != nil || out.gotErr != nil {
		t.Fatalf("send: %v; receive: %v", out.sendErr, out.gotErr)
	}
	if err := <-took; !errors.Is(err, errAlive) {
		t.Errorf("taken over: %v", err)
	}
	if err := <-released; !errors.Is(err, errStillServing) {
		t.Errorf("released: %v", err)
	}
}

// TestReleased: a source that is kept gives its guest up when it is asked to, and the guest goes on.
func TestReleased(t *testing.T) {
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			p, st := keptPair(t, mode)
			out := p.migrate()
			if out.sendErr != nil || out.gotErr != nil || !out.sent.KeepSource || p.src.released {
				t.Fatalf("send: %v %+v; receive: %v; released %v", out.sendErr, out.sent, out.gotErr, p.src.released)
			}
			ended := p.wait(st)
			p.awaitCheckpoint(st, 3)
			eventually(t, "a checkpoint has memory of the guest", func() bool {
				s := st.Status()
				return s.Pages != 0 && s.Lines != 0 && s.Bytes != 0
			})
			if err := st.Release(); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err != nil || !p.src.released {
				t.Fatalf("%v, released %v", err, p.src.released)
			}
			eventually(t, "the destination listens no more", func() bool { return p.l.ctx.Err() != nil })
			if p.src.journal.Needed() || p.dst.journal.Needed() {
				t.Error("a journal is still needed")
			}
			p.verifyLaw(destination)
			p.verifyGuest()
			if err := st.TakeOver(); !errors.Is(err, ErrStandbyOver) {
				t.Errorf("take-over after a release: %v", err)
			}
		})
	}
}

// Ways in which the reverse stream breaks.
func cutBySource(_ *pair, st *Standby)     { st.keeperForTest().cut() }
func cutByDestination(p *pair, _ *Standby) { p.l.current().reversal().conn().close() }
func wrongWord(_ *pair, st *Standby)       { _ = st.TakeOver() }

// TestReleasedWithoutStream: the destination hears that it is alone though there is no reverse stream just then, as after a
// human's wrong word.
func TestReleasedWithoutStream(t *testing.T) {
	overTCP := func(p *pair) { p.listen("tcp:127.0.0.1:0") } // where a write to who has closed succeeds
	for _, c := range []struct {
		name        string
		listen      func(*pair)
		breakStream func(*pair, *Standby)
	}{
		{"by the source", (*pair).listenUnix, cutBySource},
		{"by the destination", (*pair).listenUnix, cutByDestination},
		{"wrong word", (*pair).listenUnix, wrongWord},
		{"tcp by the source", overTCP, cutBySource},
		{"tcp by the destination", overTCP, cutByDestination},
		{"tcp wrong word", overTCP, wrongWord},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, st := keptPair(t, wire.ModePostcopy)
			c.listen(p)
			if out := p.migrate(); out.sendErr != nil || out.gotErr != nil {
				t.Fatalf("send: %v; receive: %v", out.sendErr, out.gotErr)
			}
			ended := p.wait(st)
			p.awaitCheckpoint(st, 1)
			c.breakStream(p, st)
			if err := st.Release(); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			eventually(t, "the destination listens no more", func() bool { return p.l.ctx.Err() != nil })
			if p.src.journal.Needed() || p.dst.journal.Needed() {
				t.Error("a journal is still needed")
			}
			p.verifyLaw(destination)
		})
	}
}

// TestTakenBack kills the destination after the migration. The guest goes on at the source, as it was in the last checkpoint,
// and can be moved again.
func TestTakenBack(t *testing.T) {
	for _, mode := range modes {
		for _, number := range []uint64{0, 1, 2, 7} {
			t.Run(fmt.Sprintf("%s after checkpoint %d", mode, number), func(t *testing.T) {
				p, st := keptPair(t, mode)
				out := p.migrate()
				if out.sendErr != nil {
					t.Fatal(out.sendErr)
				}
				ended := p.wait(st)
				p.awaitCheckpoint(st, number)
				p.killDestination()
				if resumed := p.wantResumed(ended); resumed.Checkpoint < number || resumed.ByHand {
					t.Errorf("%v", resumed)
				}
				if phase := p.sourcePhase(); phase != journal.Resumed {
					t.Errorf("the source's journal ends with %q", phase)
				}
			})
		}
	}
}

// lawOfKept says who may run the guest after one fault with a source that is kept.
func lawOfKept(mode wire.Mode, point inject.Point, action inject.Action) []string {
	killed := action == inject.Kill
	switch point {
	case inject.DestinationOwner, inject.DestinationPaging, inject.DestinationPage, inject.DestinationRecovered,
		inject.DestinationComplete:
		if killed {
			return []string{source} // what no other mode offers
		}
	case inject.DestinationCheckpoint, inject.DestinationAcked:
		if killed {
			return []string{source}
		}
		return []string{destination}
	case inject.SourceStandby, inject.SourceCheckpoint:
		if killed && mode.AfterCommit() {
			return []string{destination, nobody} // all memory had moved, or not
		}
		return []string{destination}
	case inject.SourceResumed:
		if killed {
			return []string{nobody} // with both its owners
		}
		return []string{source}
	case inject.DestinationEnded:
		if killed {
			return []string{nobody} // it had ended
		}
		return []string{destination} // the fake's guest does not notice
	}
	return lawfulOwners(mode, point, action)
}

// TestLawOfKept fails a migration with a source that is kept at each point, in each way, in each mode.
func TestLawOfKept(t *testing.T) {
	cases := lawCases()
	for _, mode := range modes {
		for _, point := range inject.StandbyPoints() {
			for _, action := range inject.Actions() {
				passing := 1
				if point == inject.DestinationCheckpoint || point == inject.DestinationAcked {
					passing = 2 // so that one before it counts
				}
				cases = append(cases, lawCase{mode, point, passing, action})
			}
		}
	}
	eachLawCase(t, cases, keptAt)
}

func keptAt(t *testing.T, c lawCase) {
	mode, point, action := c.mode, c.point, c.action
	p, st := keptPair(t, mode)
	p.opts.PeerTimeout = 5 * time.Second
	if action == inject.Stall {
		p.opts.PeerTimeout = time.Second // by which the sides notice a link that stands still
	}
	if point == inject.DestinationAccepted {
		p.opts.Timeout = 2 * time.Second // as in verifyCase
	}
	p.neverConverge()
	p.failAt(c)
	out := p.migrate()
	err := out.sendErr
	if err == nil {
		ended := p.wait(st)
		if !p.src.isGone() {
			p.drive(st, point, action)
		}
		err = <-ended
	}
	var resumed *ResumedError
	owners := lawOfKept(mode, point, action)
	if !errors.As(err, &resumed) && out.gotErr == nil && mode.AfterCommit() && !p.dst.isGone() {
		if err := <-p.complete; err == nil {
			p.verifyGuest()
		} else if !p.src.isGone() {
			t.Errorf("memory is lost though the source lives: %v", err)
		}
	}
	if owners[0] == nobody { // whose guest is paused in the background
		eventually(t, "nobody runs the guest", func() bool { who, _ := p.world.who(); return who == nobody })
	}
	p.verifyLaw(owners...)
	if errors.As(err, &resumed) {
		p.verifyMachine(p.src.machine)
		if want := map[inject.Point]uint64{inject.DestinationCheckpoint: 1, inject.DestinationAcked: 2}[point]; want != 0 && resumed.Checkpoint != want {
			t.Errorf("resumed from checkpoint %d, want %d", resumed.Checkpoint, want)
		}
		if out.sendErr != nil && out.sent.Status != StatusResumed {
			t.Errorf("result %+v", out.sent)
		}
	}
}

// drive takes a migration that is complete to the point, and past it to its end.
func (p *pair) drive(st *Standby, point inject.Point, action inject.Action) {
	killed := action == inject.Kill
	switch point {
	case inject.DestinationEnded:
		p.l.Close()
		if !killed { // the process ends now, whether or not it could tell
			close(p.deaths.of(p.dst.process.PID))
		}
		return
	case inject.SourceResumed:
		p.awaitCheckpoint(st, 1)
		p.killDestination()
		return
	case inject.SourceCheckpoint:
		if action != inject.Cut || killed {
			eventually(p.t, "a checkpoint has come", func() bool { return killed == p.src.isGone() })
			break
		}
	case inject.DestinationOwner, inject.DestinationPaging, inject.DestinationPage, inject.DestinationRecovered, inject.DestinationComplete,
		inject.DestinationCheckpoint, inject.DestinationAcked:
		if killed {
			return
		}
		p.awaitCheckpoint(st, 3)
	}
	_ = st.Release() // or it is over already
}

// TestTakenBackByHand: where no death can be proved, a human's word counts, but not against that of the destination.
func TestTakenBackByHand(t *testing.T) {
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			p, st := keptPair(t, mode)
			p.src.hooks.liveness, p.dst.hooks.liveness = unprovable{}, unprovable{}
			ended := p.keepsFrom(st, 2)
			if err := st.TakeOver(); !errors.Is(err, errAlive) {
				t.Fatalf("%v, want a refusal: the destination lives", err)
			}
			before := st.Status().Checkpoint
			p.awaitCheckpoint(st, before+2) // and it goes on
			p.dst.vanish()
			if err := st.TakeOver(); err != nil {
				t.Fatal(err)
			}
			if resumed := p.wantResumed(ended); !resumed.ByHand {
				t.Error(resumed)
			}
		})
	}
}

// TestTakenBackWhileServing: the destination is gone, without proof, before all memory has followed the guest.
func TestTakenBackWhileServing(t *testing.T) {
	p, st := keptPair(t, wire.ModePostcopy)
	p.src.hooks.liveness, p.dst.hooks.liveness = unprovable{}, unprovable{}
	p.opts.MaxBandwidthBytesPerS = 256 << 10
	took := make(chan error, 1)
	var once sync.Once
	p.opts.Progress = func(at Progress) {
		if at.Phase != PhasePostcopy {
			return
		}
		once.Do(func() {
			go func() {
				p.dst.vanish()
				err := st.TakeOver()
				for errors.Is(err, errAlive) { // the loss is not noticed yet
					err = st.TakeOver()
				}
				took <- err
			}()
		})
	}
	out := p.migrate()
	if resumed := (*ResumedError)(nil); !errors.As(out.sendErr, &resumed) || !resumed.ByHand {
		t.Fatalf("send: %v", out.sendErr)
	}
	if err := <-took; err != nil {
		t.Errorf("taken over: %v", err)
	}
	p.verifyLaw(source)
	p.verifyMachine(p.src.machine)
}

// TestHeardOnTheStream: a destination that takes no connection, but still sends checkpoints, is alive.
func TestHeardOnTheStream(t *testing.T) {
	p, st := keptPair(t, wire.ModePostcopy)
	p.opts.PeerTimeout = 5 * time.Second
	p.src.hooks.liveness, p.dst.hooks.liveness = unprovable{}, unprovable{}
	ended := p.keepsFrom(st, 1)
	st.keeperForTest().redirect(func(context.Context) (net.Conn, error) { return nil, errors.New("no way") })
	if err := st.TakeOver(); !errors.Is(err, errAlive) {
		t.Fatalf("%v, want a refusal: checkpoints come", err)
	}
	p.awaitCheckpoint(st, st.Status().Checkpoint+2)
	p.dst.vanish()
	if err := st.TakeOver(); err != nil {
		t.Fatal(err)
	}
	if resumed := p.wantResumed(ended); !resumed.ByHand {
		t.Error(resumed)
	}
}

// TestTakeOverWhereTheOtherLives: a destination that does not answer, but whose process can be seen, may run the guest. When it is
// killed the guest comes back.
func TestTakeOverWhereTheOtherLives(t *testing.T) {
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			p, st := keptPair(t, mode)
			ended := p.keepsFrom(st, 1)
			st.keeperForTest().redirect(noWay)
			st.keeperForTest().cut()
			if err := st.TakeOver(); err == nil || !strings.Contains(err.Error(), "the destination's process") {
				t.Fatalf("%v, want a refusal: its process lives", err)
			}
			p.verifyLaw(destination)
			p.killDestination()
			if resumed := p.wantResumed(ended); resumed.ByHand {
				t.Error(resumed)
			}
		})
	}
}

// fullSink is a file on a disk that may be full.
type fullSink struct {
	*os.File
	full atomic.Bool
}

func (f *fullSink) Write(b []byte) (int, error) {
	if f.full.Load() {
		return 0, unix.ENOSPC
	}
	return f.File.Write(b)
}

// TestTakeOverUnwritten: nothing is lost by waiting, so a human's word is written down first.
func TestTakeOverUnwritten(t *testing.T) {
	p, st := keptPair(t, wire.ModePrecopy)
	path := filepath.Join(t.TempDir(), "journal")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	disk := &fullSink{File: file}
	p.src.journal.Close()
	p.src.journal = journal.New(path, disk, nil)
	p.opts.Journal = p.src.journal
	p.src.hooks.liveness, p.dst.hooks.liveness = unprovable{}, unprovable{}
	ended := p.keepsFrom(st, 1)
	p.dst.vanish()
	disk.full.Store(true)
	if err := st.TakeOver(); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("%v, want a refusal", err)
	}
	disk.full.Store(false)
	if err := st.TakeOver(); err != nil {
		t.Fatal(err)
	}
	if who, _ := p.world.who(); who != source {
		t.Errorf("%q runs the guest when its take-over has returned", who)
	}
	p.wantResumed(ended)
}

// TestReverseStreamBreaks cuts the reverse stream again and again: no checkpoint is lost, and none is mixed with another.
func TestReverseStreamBreaks(t *testing.T) {
	p, st := keptPair(t, wire.ModePostcopy)
	p.listenUnix()
	out := p.migrate()
	if out.sendErr != nil {
		t.Fatal(out.sendErr)
	}
	ended := p.wait(st)
	for n := range uint64(20) {
		p.awaitCheckpoint(st, n)
		if n%2 == 0 {
			p.l.current().reversal().conn().close()
		} else {
			st.keeperForTest().cut()
		}
	}
	p.awaitCheckpoint(st, st.Status().Checkpoint+2)
	p.killDestination()
	p.wantResumed(ended)
}

// keeperForTest is the keeper once the guest has moved.
func (st *Standby) keeperForTest() *keeper {
	k := <-st.keeper
	st.keeper <- k
	return k
}
