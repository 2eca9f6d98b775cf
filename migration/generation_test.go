package migration

import (
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/migration/journal"
)

// TestLastGeneration: a machine that has used up its numbers is told so, and begins none again.
func TestLastGeneration(t *testing.T) {
	p := newPair(t)
	last := journal.Record{MachineID: "guest", Generation: 1<<62 - 1, Side: journal.Destination, Phase: journal.Owner}
	if err := p.src.journal.Note(last); err != nil {
		t.Fatal(err)
	}
	out := p.migrate()
	if out.sendErr == nil || !strings.Contains(out.sendErr.Error(), "at most") {
		t.Errorf("send: %v", out.sendErr)
	}
	p.verifyLaw(source)
}
