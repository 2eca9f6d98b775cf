package bench

import (
	"reflect"
	"testing"

	"github.com/fineline-vmm/fineline/cmd/internal/qemu"
	"github.com/fineline-vmm/fineline/cmd/internal/view"
	"github.com/fineline-vmm/fineline/migration"
)

func TestOurPicture(t *testing.T) {
	got := ourPicture(&migration.Result{
		TotalMS: 100, DowntimeMS: 6,
		Phases: []migration.PhaseTime{
			{Phase: "start", MS: 1}, {Phase: "preflight", MS: 2}, {Phase: "precopy", MS: 80}, {Phase: "pausing", MS: 1},
			{Phase: "stop-copy", MS: 3}, {Phase: "state", MS: 2}, {Phase: "commit", MS: 1},
		},
		Rounds: []migration.Round{{Pages: 10, Lines: 640, Bytes: 41000, MS: 80}, {Pages: 2, Lines: 2, Bytes: 200, MS: 3, Paused: true}},
		Faults: migration.Faults{Count: 5, P50US: 100, P99US: 300, MaxUS: 400},
	})
	want := view.Move{
		Name: "Fineline", TotalMS: 100, DowntimeMS: 6,
		Rounds: []view.Round{{StartMS: 3, MS: 80, Bytes: 41000, Pages: 10, Lines: 640}, {StartMS: 83, MS: 3, Bytes: 200, Pages: 2, Lines: 2, Paused: true}},
		Phases: []view.Phase{{Name: "stop-copy", MS: 3}, {Name: "state", MS: 2}, {Name: "commit", MS: 1}},
		Marks:  []view.Mark{{Name: "p50", US: 100}, {Name: "p99", US: 300}, {Name: "max", US: 400}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("ourPicture() = %+v, want %+v", got, want)
	}
}

// TestPeerPicture: it knows no lines, so a page is all of them; and the parts of its downtime are the whole.
func TestPeerPicture(t *testing.T) {
	r := record{
		sample: sample{totalMS: 50, downtimeMS: 9, faultsUS: []float64{70}},
		peer:   &qemu.Migration{DowntimeMS: 9, SourceMS: 8, Passes: []qemu.Pass{{StartMS: 1, MS: 40, Bytes: 5000, Pages: 2, Paused: true}}},
	}
	got := peerPicture("QEMU", r)
	want := view.Move{
		Name: "QEMU", TotalMS: 50, DowntimeMS: 9, FaultsUS: []float64{70},
		Rounds: []view.Round{{StartMS: 1, MS: 40, Bytes: 5000, Pages: 2, Lines: 128, Paused: true}},
		Phases: []view.Phase{{Name: "source sends", MS: 8}, {Name: "destination starts", MS: 1}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("peerPicture() = %+v, want %+v", got, want)
	}
	if got := peerPhases(&qemu.Migration{DowntimeMS: 3}); len(got) != 1 || got[0].MS != 3 {
		t.Errorf("of a post-copy: %+v", got)
	}
}
