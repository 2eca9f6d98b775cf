package api

import (
	"errors"
	"strings"
	"testing"
)

func TestLifecycleSteps(t *testing.T) {
	at := func(p Phase) Lifecycle { return Lifecycle{Phase: p} }
	from := func(p, before Phase) Lifecycle { return Lifecycle{Phase: p, Before: before} }
	for _, c := range []struct {
		name  string
		begin Lifecycle
		event Event
		end   Lifecycle
	}{
		{"configure", at(NotStarted), Configure, at(NotStarted)},
		{"start", at(NotStarted), Start, at(Running)},
		{"pause", at(Running), Pause, at(Paused)},
		{"resume", at(Paused), Resume, at(Running)},
		{"migrate what runs", at(Running), Migrate, from(Migrating, Running)},
		{"migrate what is paused", at(Paused), Migrate, from(Migrating, Paused)},
		{"a cancel is only a wish", from(Migrating, Running), Cancel, from(Migrating, Running)},
		{"failure leads back to running", from(Migrating, Running), GuestKept, at(Running)},
		{"failure leads back to paused", from(Migrating, Paused), GuestKept, at(Paused)},
		{"moved", from(Migrating, Running), GuestMoved, at(Ended)},
		{"doubt remembers", from(Migrating, Paused), GuestInDoubt, from(InDoubt, Paused)},
		{"its memory follows", from(Migrating, Running), GuestLeft, at(Serving)},
		{"a doubt settles itself, and memory follows", from(InDoubt, Running), GuestLeft, at(Serving)},
		{"recover", at(Serving), Recover, at(Serving)},
		{"all has gone", at(Serving), GuestMoved, at(Ended)},
		{"keep", from(InDoubt, Paused), Keep, at(Paused)},
		{"discard", from(InDoubt, Running), Discard, at(Ended)},
		{"doubt settles itself, kept", from(InDoubt, Running), GuestKept, at(Running)},
		{"doubt settles itself, moved", from(InDoubt, Running), GuestMoved, at(Ended)},
		{"arrival", at(Incoming), GuestArrived, at(Running)},
		{"arrival of a paused guest", at(Incoming), GuestArrivedPaused, at(Paused)},
		{"doubt at the destination", at(Incoming), GuestInDoubt, from(InDoubt, Running)},
		{"doubt at the destination settles itself", from(InDoubt, Running), GuestArrived, at(Running)},
		{"and so for a paused guest", from(InDoubt, Running), GuestArrivedPaused, at(Paused)},
		{"and so when somebody has decided", at(Running), GuestArrivedPaused, at(Paused)},
		{"power-off", at(Running), GuestEnded, at(Ended)},
		{"power-off during a migration", from(Migrating, Running), GuestEnded, at(Ended)},
		{"stop", at(Running), Stop, at(Ended)},
		{"stop after the end", at(Ended), Stop, at(Ended)},
		{"a report that lost the race", at(Ended), GuestKept, at(Ended)},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.begin.Step(c.event)
			if err != nil || got != c.end {
				t.Errorf("%+v, %s: got %+v, %v; want %+v", c.begin, c.event, got, err, c.end)
			}
		})
	}
}

func TestLifecycleRefusals(t *testing.T) {
	for _, c := range []struct {
		phase Phase
		event Event
		want  string
	}{
		{NotStarted, Pause, "cannot pause: the machine has not been started: start it first"},
		{NotStarted, Migrate, "not been started"},
		{Incoming, Start, "waits for an incoming migration"},
		{Incoming, Cancel, "no migration is in progress"},
		{Running, Start, "cannot start: the machine has been started already"},
		{Paused, Configure, "started already"},
		{Running, Cancel, "no migration is in progress"},
		{Running, Keep, "no migration is in doubt"},
		{Migrating, Pause, "cannot pause: a migration is in progress: cancel it first"},
		{Migrating, Migrate, "cancel it first"},
		{Migrating, Stop, "fineline cancel"},
		{Migrating, Keep, "cancel it first"},
		{InDoubt, Resume, "in doubt: look at the other side and settle it first, with fineline resume --in-doubt keep"},
		{InDoubt, Stop, "settle it first"},
		{InDoubt, Cancel, "or discard (it runs there)"},
		{StandingBy, Resume, "fineline stop gives them up"},
		{StandingBy, Migrate, "fineline resume --in-doubt keep"},
		{Running, Recover, "cannot recover: no guest that has left"},
		{Migrating, Recover, "no guest that has left"},
		{Serving, Cancel, "too late: the guest runs at the destination"},
		{Serving, Resume, "fetches its memory from here"},
		{Serving, Migrate, "this process ends when all has gone"},
		{Serving, Stop, "Two signals"},
		{Ended, Start, "cannot start: the machine has ended: it can only be stopped"},
		{Ended, Discard, "no migration is in doubt"},
		{PhaseInvalid, Start, "no valid phase"},
	} {
		t.Run(c.phase.String()+" "+c.event.String(), func(t *testing.T) {
			begin := Lifecycle{Phase: c.phase}
			got, err := begin.Step(c.event)
			var conflict *ConflictError
			if !errors.As(err, &conflict) || conflict.Phase != c.phase || conflict.Event != c.event {
				t.Fatalf("got %+v, %v; want a conflict", got, err)
			}
			if got != begin {
				t.Errorf("a refusal changed the lifecycle to %+v", got)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q, want %q in it", err, c.want)
			}
		})
	}
	for _, l := range []Lifecycle{{Phase: Running}, {Phase: Paused}} {
		e := map[Phase]Event{Running: Resume, Paused: Pause}[l.Phase]
		if got, err := l.Step(e); !errors.Is(err, errAlready) || got != l {
			t.Errorf("%s again: got %+v, %v", e, got, err)
		}
	}
}

// TestLifecycleInvariant walks everything that can be reached.
func TestLifecycleInvariant(t *testing.T) {
	seen := map[Lifecycle]bool{}
	queue := []Lifecycle{{Phase: NotStarted}, {Phase: Incoming}}
	for len(queue) > 0 {
		l := queue[0]
		queue = queue[1:]
		if seen[l] {
			continue
		}
		seen[l] = true
		remembers := l.Phase == Migrating || l.Phase == InDoubt
		if valid := l.Before == Running || l.Before == Paused; remembers != valid || (!remembers && l.Before != PhaseInvalid) {
			t.Errorf("invariant broken: %+v", l)
		}
		for e := Configure; e <= GuestEnded; e++ {
			if next, err := l.Step(e); err == nil {
				queue = append(queue, next)
			} else if next != l {
				t.Errorf("%+v, %s: an error changed the lifecycle", l, e)
			}
		}
		if next, err := l.Step(GuestEnded); err != nil || next.Phase != Ended {
			t.Errorf("%+v: the end of the guest must always be taken: %+v, %v", l, next, err)
		}
	}
	for p := NotStarted; p <= Ended; p++ {
		found := false
		for l := range seen {
			found = found || l.Phase == p
		}
		if !found {
			t.Errorf("%s can't be reached", p)
		}
	}
}

func TestLifecycleState(t *testing.T) {
	for l, want := range map[Lifecycle]string{
		{Phase: NotStarted}:                 StateNotStarted,
		{Phase: Incoming}:                   StateNotStarted,
		{Phase: Running}:                    StateRunning,
		{Phase: Paused}:                     StatePaused,
		{Phase: Migrating, Before: Running}: StateRunning,
		{Phase: Migrating, Before: Paused}:  StatePaused,
		{Phase: InDoubt, Before: Running}:   StatePaused,
		{Phase: Serving}:                    StateNotStarted,
		{Phase: Ended}:                      StateNotStarted,
	} {
		if got := l.State(); got != want {
			t.Errorf("%+v: %q, want %q", l, got, want)
		}
	}
	if len(phaseNames) != int(Ended)+1 || len(eventNames) != int(GuestEnded)+1 {
		t.Error("a phase or an event has no name")
	}
	if Phase(99).String() != "phase(99)" || Event(99).String() != "event(99)" {
		t.Error("unknown values must print as numbers")
	}
}
