package view

import (
	"testing"

	"github.com/fineline-vmm/fineline/migration"
)

// TestSpeedOfLostConnection: what is not sent is the least that has to come, and with nothing unsent nothing is known.
func TestSpeedOfLostConnection(t *testing.T) {
	for absentPages, want := range map[uint64]string{256: "2 MiB, at least 1 MiB to come", 0: "2 MiB, not known what has arrived"} {
		p := migration.Progress{Phase: migration.PhaseReconnecting, BytesSent: 2 << 20, AbsentPages: absentPages}
		if got := Speed(&p); got != want {
			t.Errorf("%d pages unsent: %q, want %q", absentPages, got, want)
		}
	}
}
