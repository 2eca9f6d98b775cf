package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/migration"
)

// TestRowsOfPostcopy: what is sent has not arrived yet, and nobody reads that nothing is to go.
func TestRowsOfPostcopy(t *testing.T) {
	p := migration.Progress{Phase: migration.PhasePostcopy, BytesSent: 1 << 20, PostcopyPages: 512, AbsentPages: 256}
	s := migrationStatus{Outgoing: &p}
	if got := fmt.Sprint(s.rows()); !strings.Contains(got, "1 MiB of 2 MiB") {
		t.Error(got)
	}
	if got := unsentText(&p); got != "1 MiB are not sent yet" {
		t.Error(got)
	}
	p.AbsentPages = 0
	if got := fmt.Sprint(s.rows()); strings.Contains(got, "memory to go") || !strings.Contains(got, "the destination stores the last") {
		t.Error(got)
	}
	if got := unsentText(&p); !strings.Contains(got, "the destination stores the last") {
		t.Error(got)
	}
	p.Phase = migration.PhaseReconnecting
	if got := fmt.Sprint(unsentText(&p), s.rows()); strings.Contains(got, "all ") || strings.Contains(got, " 0 B") {
		t.Error(got)
	}
}

// TestRowsOfEnded: a guest that was ended before its memory was there is not said to have just arrived.
func TestRowsOfEnded(t *testing.T) {
	s := migrationStatus{Result: &migration.Result{Status: migration.StatusCompleted, EndedThere: true}}
	if got := fmt.Sprint(s.rows()); !strings.Contains(got, "ended at the destination before all its memory") {
		t.Error(got)
	}
	s.Result.EndedThere = false
	if got := fmt.Sprint(s.rows()); strings.Contains(got, "ended") {
		t.Error(got)
	}
}
