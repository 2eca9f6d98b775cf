package migration

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

func TestCheckpointPeriod(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		interval, pause time.Duration
		pages           uint64
		want            time.Duration
	}{
		{100 * ms, 0, 0, 100 * ms},
		{100 * ms, ms, 1000, 100 * ms},   // 5 ms of 100
		{100 * ms, 20 * ms, 0, 100 * ms}, // a fifth is allowed
		{100 * ms, 21 * ms, 0, 105 * ms},
		{100 * ms, 0, 5001, 5 * 5001 * writeFault}, // no pause to speak of, and faults
		{100 * ms, 7 * ms, 16384, 5 * (7*ms + 16384*writeFault)},
		{10 * time.Second, 7 * ms, 16384, 10 * time.Second},
		{0, 3 * ms, 0, 15 * ms}, // one that was missed
		{ms, 10 * time.Hour, 0, time.Hour},
		{ms, 0, 1 << 40, time.Hour},
	} {
		if got := checkpointPeriod(c.interval, c.pause, c.pages); got != c.want {
			t.Errorf("an interval of %v, a pause of %v and %d pages make %v, want %v", c.interval, c.pause, c.pages, got, c.want)
		}
	}
}

// pausedClock stands still but for what a test adds, and waits for nothing but the end of what it writes down.
type pausedClock struct {
	hastyClock
	now time.Duration // guarded by mu
}

func (c *pausedClock) Now() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *pausedClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now += d
}

// TestCheckpointsLeaveTheGuestItsTime: a guest that stands still for 70 ms in each checkpoint, or in the attempt at one, runs
// for four times as long before the next, whatever the interval.
func TestCheckpointsLeaveTheGuestItsTime(t *testing.T) {
	const pause = 70 * time.Millisecond
	for _, missing := range []error{nil, fmt.Errorf("%w: a vCPU waits", memory.ErrMissing)} {
		t.Run(fmt.Sprint(missing), func(t *testing.T) {
			p, st := keptPair(t, wire.ModePrecopy)
			clock := &pausedClock{now: time.Hour}
			p.dst.hooks.clock = clock
			fail := missing // once
			p.dst.onCheckpoint = func() error {
				clock.add(pause)
				defer func() { fail = nil }()
				return fail
			}
			if out := p.migrate(); out.sendErr != nil {
				t.Fatal(out.sendErr)
			}
			ctx, release := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- st.Wait(ctx) }()
			p.awaitCheckpoint(st, 5)
			release()
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			if s := st.Status(); missing != nil && s.Missed != 1 {
				t.Errorf("%+v, want one that was missed", s)
			}
			waits := clock.noted()
			at := slices.Index(waits, time.Millisecond) // the first checkpoint has none before it
			if at < 0 || len(waits) < at+6 {
				t.Fatalf("waits %v", waits)
			}
			for _, wait := range waits[at+1:] {
				if wait < (checkpointShare-1)*pause {
					t.Errorf("waits %v: %v after a pause of %v", waits, wait, pause)
				}
			}
		})
	}
}

// patientConn tells until when its reader waits.
type patientConn struct {
	net.Conn
	until chan time.Time
}

func (c *patientConn) SetReadDeadline(at time.Time) error {
	c.until <- at
	return c.Conn.SetReadDeadline(at)
}

// TestCheckpointsPutOff: a source waits for the next checkpoint for as long as the destination says that it takes.
func TestCheckpointsPutOff(t *testing.T) {
	k, st, there := hostileKeeper(t, 5*time.Second)
	conn := &patientConn{st.conn, make(chan time.Time, 100)}
	st = newStream(conn, 5*time.Second, &k.s.streamed)
	go func() { _, _ = io.Copy(io.Discard, there) }() // acknowledgements
	ended := make(chan error, 1)
	go func() { ended <- k.read(st) }()
	w := newRawWriter(there)
	for _, step := range []step{
		sendMessage(wire.TypeCheckpoint, wire.Checkpoint{Number: 1}),
		sendBytes(wire.TypeState, []byte(`{"steps":7}`)),
		sendMessage(wire.TypeCheckpointEnd, wire.CheckpointEnd{Number: 1, PeriodMS: wire.MaxCheckpointMS}),
	} {
		if err := step(w); err != nil {
			t.Fatal(err)
		}
	}
	for until := time.Now(); time.Until(until) < wire.MaxCheckpointMS*time.Millisecond/2; {
		select {
		case until = <-conn.until:
		case err := <-ended:
			t.Fatal(err)
		}
	}
	there.Close()
	if err := <-ended; err == nil {
		t.Error("no error")
	}
}
