package api

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

var request = MigrationRequest{DestinationURL: "unix:/tmp/destination"}

func started(t *testing.T) (*fakeController, *Session) {
	t.Helper()
	f, s := newFake(t, false)
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f, s
}

func wantPhase(t *testing.T, s *Session, want Phase) {
	t.Helper()
	if got := s.Lifecycle().Phase; got != want {
		t.Fatalf("phase %s, want %s", got, want)
	}
}

func wantError(t *testing.T, err error, part string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), part) {
		t.Fatalf("got %v, want an error with %q", err, part)
	}
}

func TestFailedOperationLeavesThePhase(t *testing.T) {
	f, s := newFake(t, false)
	f.fail = errFake
	for _, op := range []func(context.Context) error{s.Start, s.Stop} {
		if err := op(t.Context()); !errors.Is(err, errFake) {
			t.Fatalf("got %v", err)
		}
		wantPhase(t, s, NotStarted)
	}
}

func TestRepeatedPauseAndResumeSucceed(t *testing.T) {
	f, s := started(t)
	for _, op := range []func(context.Context) error{s.Resume, s.Pause, s.Pause, s.Resume, s.Resume} {
		if err := op(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(f.calls, " "); got != "start pause resume" {
		t.Errorf("calls: %s", got)
	}
}

func TestGuestThatEndsDuringItsStart(t *testing.T) {
	f, s := newFake(t, false)
	f.entered, f.hold = make(chan string), make(chan struct{})
	result := make(chan error)
	go func() { result <- s.Start(t.Context()) }()
	<-f.entered
	s.GuestEnded()
	close(f.hold)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	wantPhase(t, s, Ended)
}

func TestWaiterGivesUpAndOperationDoesNot(t *testing.T) {
	f, s := newFake(t, false)
	f.entered, f.hold = make(chan string), make(chan struct{})
	ctx, hangUp := context.WithCancel(t.Context())
	first := make(chan error)
	go func() { first <- s.Start(ctx) }()
	<-f.entered
	hangUp() // the client of the start has gone; so has that of a second request
	wantError(t, s.Pause(ctx), "cannot pause: another operation is still under way")
	close(f.hold)
	if err := <-first; err != nil {
		t.Fatalf("the start was dropped half done: %v", err)
	}
	wantPhase(t, s, Running)
}

func TestMigrationConflictsAndOutcomes(t *testing.T) {
	for _, c := range []struct {
		outcome Event
		want    Phase
	}{{GuestKept, Paused}, {GuestMoved, Ended}, {GuestInDoubt, InDoubt}} {
		t.Run(c.outcome.String(), func(t *testing.T) {
			_, s := started(t)
			if err := errors.Join(s.Pause(t.Context()), s.StartMigration(t.Context(), request)); err != nil {
				t.Fatal(err)
			}
			wantPhase(t, s, Migrating)
			wantError(t, s.Pause(t.Context()), "cancel it first")
			wantError(t, s.StartMigration(t.Context(), request), "a migration is in progress")
			if err := s.MigrationEnded(c.outcome, map[string]int{"rounds": 3}); err != nil {
				t.Fatal(err)
			}
			wantPhase(t, s, c.want)
			line, _, final, err := s.watch().next(t.Context(), nil, 0)
			if err != nil || !final || string(line) != `{"final":true,"data":{"rounds":3}}` {
				t.Errorf("%s %v %v", line, final, err)
			}
		})
	}
}

func TestRefusedPreflightGivesTheGuestBack(t *testing.T) {
	f, s := started(t)
	f.onMigrate = func(MigrationRequest) error { return errFake }
	if err := s.StartMigration(t.Context(), request); !errors.Is(err, errFake) {
		t.Fatal(err)
	}
	wantPhase(t, s, Running)
	line, _, final, _ := s.watch().next(t.Context(), nil, 0)
	if !final || !strings.Contains(string(line), errFake.Error()) {
		t.Errorf("the stream ends with %s", line)
	}
}

func TestOutcomeBeforeStartMigrationReturns(t *testing.T) {
	f, s := started(t)
	f.onMigrate = func(MigrationRequest) error { return s.MigrationEnded(GuestMoved, "done") }
	if err := s.StartMigration(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	wantPhase(t, s, Ended)
}

func TestCancel(t *testing.T) {
	t.Run("brings the guest back", func(t *testing.T) {
		_, s := started(t)
		wantError(t, s.CancelMigration(t.Context()), "no migration is in progress")
		if err := errors.Join(s.StartMigration(t.Context(), request), s.CancelMigration(t.Context())); err != nil {
			t.Fatal(err)
		}
		wantPhase(t, s, Running)
	})
	t.Run("during a preflight that hangs", func(t *testing.T) {
		f, s := started(t)
		hang, inPreflight := make(chan struct{}), make(chan struct{})
		f.onMigrate = func(MigrationRequest) error { close(inPreflight); <-hang; return errFake }
		f.onCancel = func() error { close(hang); return nil }
		result := make(chan error)
		go func() { result <- s.StartMigration(t.Context(), request) }()
		<-inPreflight
		if err := s.CancelMigration(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-result; !errors.Is(err, errFake) {
			t.Fatal(err)
		}
		wantPhase(t, s, Running)
	})
	t.Run("too late", func(t *testing.T) {
		f, s := started(t)
		f.onCancel = func() error { return s.MigrationEnded(GuestMoved, "done") }
		if err := s.StartMigration(t.Context(), request); err != nil {
			t.Fatal(err)
		}
		wantError(t, s.CancelMigration(t.Context()), "too late to cancel")
	})
	t.Run("refused", func(t *testing.T) {
		f, s := started(t)
		f.onCancel = func() error { return errFake }
		if err := s.StartMigration(t.Context(), request); err != nil {
			t.Fatal(err)
		}
		wantError(t, s.CancelMigration(t.Context()), errFake.Error())
		wantPhase(t, s, Migrating)
	})
}

func TestResolve(t *testing.T) {
	for d, want := range map[Decision]Phase{DecisionKeep: Running, DecisionDiscard: Ended} {
		f, s := started(t)
		wantError(t, s.ResolveMigration(t.Context(), d), "no migration is in doubt")
		if err := errors.Join(
			s.StartMigration(t.Context(), request),
			s.MigrationEnded(GuestInDoubt, "?"),
			s.ResolveMigration(t.Context(), d),
		); err != nil {
			t.Fatal(err)
		}
		if f.lastDecision != d {
			t.Errorf("decision %q, want %q", f.lastDecision, d)
		}
		wantPhase(t, s, want)
	}
	_, s := started(t)
	wantError(t, s.ResolveMigration(t.Context(), "toss a coin"), `choose "keep" or "discard"`)
}

func TestIncoming(t *testing.T) {
	_, s := newFake(t, true)
	wantError(t, s.Start(t.Context()), "waits for an incoming migration")
	s.MigrationProgress("on its way")
	if err := s.MigrationEnded(GuestArrived, "here"); err != nil {
		t.Fatal(err)
	}
	wantPhase(t, s, Running)
}

func TestOutcomesThatDoNotFit(t *testing.T) {
	_, s := started(t)
	var conflict *ConflictError
	if err := s.MigrationEnded(GuestArrived, nil); !errors.As(err, &conflict) {
		t.Errorf("got %v", err)
	}
	wantError(t, s.MigrationEnded(Pause, nil), "not the outcome of a migration")
	wantError(t, s.MigrationEnded(GuestEnded, nil), "not the outcome of a migration")
	wantPhase(t, s, Running)
}

func TestProgressThatIsNotJSON(t *testing.T) {
	_, s := started(t)
	s.MigrationProgress(math.NaN())
	line, _, _, _ := s.watch().next(t.Context(), nil, 0)
	var ev MigrationEvent
	if err := json.Unmarshal(line, &ev); err != nil || !strings.Contains(ev.Fault, "encode") {
		t.Errorf("%s %v", line, err)
	}
}

func TestFeed(t *testing.T) {
	f := newFeed()
	for _, data := range []string{"1", "2"} {
		f.publish(MigrationEvent{Data: json.RawMessage(data)})
	}
	line, seq, final, err := f.next(t.Context(), nil, 0)
	if err != nil || final || string(line) != `{"final":false,"data":2}` {
		t.Fatalf("a late reader gets %s, %v, %v", line, final, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, _, err := f.next(ctx, nil, seq); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	closing := make(chan struct{})
	close(closing)
	if _, _, _, err := f.next(t.Context(), closing, seq); !errors.Is(err, errFeedClosed) {
		t.Errorf("got %v", err)
	}
	f.publish(MigrationEvent{Final: true, Data: json.RawMessage("3")})
	f.publish(MigrationEvent{Final: true, Data: json.RawMessage("4")})
	line, _, final, err = f.next(ctx, closing, seq)
	if err != nil || !final || string(line) != `{"final":true,"data":3}` {
		t.Errorf("the first end must stay, even for who hangs up: %s, %v, %v", line, final, err)
	}
	g := newFeed()
	g.publish(MigrationEvent{Final: true, Data: json.RawMessage("{")})
	if line, _, _, _ := g.next(t.Context(), nil, 0); !strings.Contains(string(line), "fault_message") {
		t.Errorf("broken data: %s", line)
	}
}

// TestManyClientsAtOnce lets clients do what they like; the fake controller is the judge.
func TestManyClientsAtOnce(t *testing.T) {
	f, s := started(t)
	f.onMigrate = func(MigrationRequest) error {
		go func() {
			s.MigrationProgress(1)
			// A cancel may have ended it first: then this does not fit any more.
			_ = s.MigrationEnded(GuestKept, 2)
		}()
		return nil
	}
	var clients sync.WaitGroup
	for seed := range uint64(8) {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(seed, 0))
			for range 200 {
				switch random.IntN(6) {
				case 0:
					_ = s.Pause(t.Context())
				case 1:
					_ = s.Resume(t.Context())
				case 2:
					_ = s.StartMigration(t.Context(), request)
				case 3:
					_ = s.CancelMigration(t.Context())
				case 4:
					_ = s.Start(t.Context())
				case 5:
					_ = s.PatchMachineConfig(t.Context(), MachineConfigPatch{VCPUCount: new(int)})
				}
			}
		})
	}
	clients.Wait()
}

// TestAwaitResultTold: a process that ends after its migration waits for the reader of the result.
func TestAwaitResultTold(t *testing.T) {
	_, s := started(t)
	s.AwaitResultTold(t.Context()) // no migration: at once
	if err := s.StartMigration(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if err := s.MigrationEnded(GuestMoved, "the result"); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	s.AwaitResultTold(ended) // nobody reads: not for ever
	select {
	case <-s.watch().told:
		t.Fatal("told before anybody has read")
	default:
	}
	w := httptest.NewRecorder()
	NewServer(s, quietConfig()).stream(w, httptest.NewRequest(http.MethodGet, pathMigrationEvents, nil))
	s.AwaitResultTold(t.Context())
	if !strings.Contains(w.Body.String(), "the result") {
		t.Errorf("the stream says %q", w.Body)
	}
}
