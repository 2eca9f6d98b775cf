package api

import (
	"errors"
	"testing"
)

// TestGuestThatLeft: from its first instruction at the destination on a migration can't be undone, and the process that has
// its memory can't be stopped by a request.
func TestGuestThatLeft(t *testing.T) {
	f, s := started(t)
	wantError(t, s.RecoverMigration(t.Context(), RecoverRequest{}), "no guest that has left")
	if err := s.StartMigration(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	cancelled := make(chan struct{})
	f.onCancel = func() error {
		close(cancelled)
		return nil
	}
	go func() {
		<-cancelled // the cancel has been passed on, and is too late
		s.GuestLeft()
	}()
	wantError(t, s.CancelMigration(t.Context()), "too late to cancel: the guest runs at the destination")
	wantPhase(t, s, Serving)
	wantError(t, s.CancelMigration(t.Context()), "too late")
	f.underWay = 3<<20 + 1
	wantError(t, s.Stop(t.Context()), "4 MiB of its memory would be lost")
	wantError(t, s.StartMigration(t.Context(), request), "fetches its memory from here")
	if err := s.RecoverMigration(t.Context(), RecoverRequest{DestinationURL: "unix:/there"}); err != nil || f.lastRecover.DestinationURL != "unix:/there" {
		t.Errorf("recover: %v, %+v", err, f.lastRecover)
	}
	wantError(t, s.RecoverMigration(t.Context(), RecoverRequest{DestinationURL: "a\x00b"}), "NUL")
	if err := s.MigrationEnded(GuestMoved, "done"); err != nil {
		t.Fatal(err)
	}
	wantPhase(t, s, Ended)
}

// TestLeftAfterDoubt: who follows the memory of a guest that had left, as came out later, reads of that and not of the doubt.
func TestLeftAfterDoubt(t *testing.T) {
	_, s := started(t)
	if err := errors.Join(s.StartMigration(t.Context(), request), s.MigrationEnded(GuestInDoubt, "who knows")); err != nil {
		t.Fatal(err)
	}
	s.GuestLeft()
	wantPhase(t, s, Serving)
	s.MigrationProgress("under way")
	stream := s.watch()
	line, seq, final, err := stream.next(t.Context(), nil, 0)
	if err != nil || final || string(line) != `{"final":false,"data":"under way"}` {
		t.Errorf("%s, %v, %v", line, final, err)
	}
	if err := s.MigrationEnded(GuestMoved, "done"); err != nil {
		t.Fatal(err)
	}
	if line, _, final, err := stream.next(t.Context(), nil, seq); err != nil || !final || string(line) != `{"final":true,"data":"done"}` {
		t.Errorf("%s, %v, %v", line, final, err)
	}
}

// TestArrivingMemory: a guest that is here runs, is paused and resumed; it moves on when all of it is here. Its stream ends then.
func TestArrivingMemory(t *testing.T) {
	f, s := newFake(t, true)
	f.started, f.running, f.underWay = true, true, 5<<20
	a, err := s.GuestArrived(GuestArrived, map[string]int{"absent_bytes": 5 << 20})
	if err != nil {
		t.Fatal(err)
	}
	wantPhase(t, s, Running)
	stream := s.watch()
	if line, _, final, _ := stream.next(t.Context(), nil, 0); final || string(line) != `{"final":false,"data":{"absent_bytes":5242880}}` {
		t.Errorf("%s, %v", line, final)
	}
	wantError(t, s.StartMigration(t.Context(), request), "cannot migrate: memory is still arriving: 5 MiB to come")
	wantPhase(t, s, Running)
	f.underWay = 0
	if err := errors.Join(s.Pause(t.Context()), s.StartMigration(t.Context(), request)); err != nil {
		t.Fatal(err)
	}
	// The end of the one is not told to who reads of the other.
	a.Ended("all is here")
	if line, _, final, _ := stream.next(t.Context(), nil, 1); !final || string(line) != `{"final":true,"data":"all is here"}` {
		t.Errorf("%s, %v", line, final)
	}
	if s.watch().isFinal() {
		t.Error("the migration away has ended with the one that came")
	}
}
