package migration

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/migration/wire"
)

func noWay(context.Context) (net.Conn, error) { return nil, errors.New("no way") }

// wholeCheckpoint is one without pages, after which the next may come so much later.
func wholeCheckpoint(number, periodMS uint64) []step {
	return []step{
		sendMessage(wire.TypeCheckpoint, wire.Checkpoint{Number: number}), sendBytes(wire.TypeState, []byte(`{"steps":7}`)),
		sendMessage(wire.TypeCheckpointEnd, wire.CheckpointEnd{Number: number, PeriodMS: periodMS}),
	}
}

// TestAnswers: a destination is heard on the stream that there is if it does more than what may have been on its way when it died.
func TestAnswers(t *testing.T) {
	lost := func(w *rawWriter) error { return w.out.(net.Conn).Close() }
	slowly := func(steps ...step) step {
		var frames bytes.Buffer
		if err := newRawWriter(&frames).play(steps...); err != nil {
			t.Fatal(err)
		}
		return func(w *rawWriter) error {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for _, b := range frames.Bytes() {
				if _, err := w.out.Write([]byte{b}); err != nil {
					return err
				}
				<-tick.C
			}
			return nil
		}
	}
	const forever = wire.MaxCheckpointMS
	for _, c := range []struct {
		name    string
		timeout time.Duration // a destination that speaks is not waited for
		steps   []step
		alive   bool
	}{
		{"silent", 100 * time.Millisecond, nil, false},
		{"lost", hangGuard, []step{lost}, false},
		{"one on its way", hangGuard, append(wholeCheckpoint(1, 0), lost), false},
		{"one on its way, one torn before", hangGuard, append(wholeCheckpoint(2, 0), lost), false},
		{"one on its way, then silent", 100 * time.Millisecond, wholeCheckpoint(1, forever), false},
		{"two", hangGuard, slices.Concat(wholeCheckpoint(1, 0), wholeCheckpoint(2, 0)), true},
		{"guest ended", hangGuard, []step{sendBytes(wire.TypeEnded, nil)}, false},
		{"a large one", 500 * time.Millisecond, []step{
			slowly(sendMessage(wire.TypeCheckpoint, wire.Checkpoint{Number: 1}), sendBytes(wire.TypeState, make([]byte, 1<<20))),
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			k, st, there := hostileKeeper(t, c.timeout)
			k.redirect(noWay)
			go func() { _, _ = io.Copy(io.Discard, there) }() // acknowledgements
			k.use(st)
			k.begin()
			k.sign()
			answer := make(chan bool, 1)
			go func() { answer <- k.answers(nil) }()
			eventually(t, "it looks", func() bool { return len(k.signs) == 0 })
			played := make(chan error, 1)
			go func() { played <- newRawWriter(there).play(c.steps...) }()
			if alive := <-answer; alive != c.alive {
				t.Errorf("alive: %t, want %t", alive, c.alive)
			}
			there.Close()
			<-played
			k.end()
		})
	}
}

// TestTakeOverMeetsProof: a destination passes the guest on and is killed while a human declares it dead. The human is wrong.
func TestTakeOverMeetsProof(t *testing.T) {
	p, st := keptPair(t, wire.ModePrecopy)
	stuck, waits := p.stickSource()
	if out := p.migrate(); out.sendErr != nil || out.gotErr != nil {
		t.Fatalf("send: %v; receive: %v", out.sendErr, out.gotErr)
	}
	ended := p.wait(st)
	p.awaitCheckpoint(st, 1)
	asked := make(chan struct{}, 1)
	st.keeperForTest().redirect(func(ctx context.Context) (net.Conn, error) {
		select {
		case asked <- struct{}{}:
		default:
		}
		return noWay(ctx)
	})
	stuck.Store(true)
	<-waits
	answer := make(chan error, 1)
	go func() { answer <- st.TakeOver() }()
	<-asked
	p.l.leaveSource()
	eventually(t, "the journal says that the guest left", func() bool {
		phase, _ := lastPhase(p.dst.journal.Records("guest", 1), "guest", 1, journal.Destination)
		return phase == journal.Ended
	})
	p.killDestination()
	if err := <-answer; !errors.Is(err, errJustDied) && !errors.Is(err, errEnded) {
		t.Errorf("taken over: %v", err)
	}
	if err := <-ended; err != nil || !p.src.released {
		t.Errorf("%v, released %v", err, p.src.released)
	}
	if p.src.journal.Needed() {
		t.Error("the journal of the source is still needed")
	}
}
