package main

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/migration"
)

// TestStopWhileMemoryFollows: a destination ends as it is asked to, though memory that its vCPUs look for is still to come. The source
// learns that none is needed any more.
func TestStopWhileMemoryFollows(t *testing.T) {
	hostTierOnly(t)
	for how, stop := range map[string]func(*machine) error{
		"api":    func(m *machine) error { return m.API.Stop(m.h.ctx) },
		"signal": func(m *machine) error { return unix.Kill(m.PID(), unix.SIGTERM) },
	} {
		for _, keep := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, source kept %t", how, keep), func(t *testing.T) {
				p := startSlowPostcopy(t, keep)
				if err := stop(p.dst); err != nil {
					t.Fatal(err)
				}
				if code := p.dst.awaitExit(); code != 0 || strings.Contains(p.dst.Stderr(), "run ended") {
					t.Errorf("the destination ended with %d\n%s", code, p.dst.Stderr())
				}
				<-p.told
				if p.err != nil || p.result.Status != migration.StatusCompleted || !p.result.EndedThere {
					t.Errorf("migrate: %v, %+v", p.err, p.result)
				}
				if code := p.src.awaitExit(); code != 0 || strings.Contains(p.src.Stderr(), "a second signal") {
					t.Errorf("the source ended with %d\n%s", code, p.src.Stderr())
				}
				p.src.checkLeftovers()
				p.dst.checkLeftovers()
			})
		}
	}
}
