package inject

import (
	"errors"
	"testing"
)

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		text string
		ok   bool
	}{
		{"", true},
		{"source.paused=kill", true},
		{"source.paused=kill,destination.owner=cut", true},
		{"source.paused", false},
		{"source.nowhere=kill", false},
		{"source.paused=explode", false},
		{"source.paused=kill,", false},
		{"source.paused=stall,destination.page#128=cut", true},
		{"source.round#0=cut", false},
		{"source.round#=cut", false},
		{"source.round#two=cut", false},
	} {
		if _, err := Parse(tc.text); (err == nil) != tc.ok {
			t.Errorf("Parse(%q) = %v, want ok=%v", tc.text, err, tc.ok)
		}
	}
}

func TestFromEnv(t *testing.T) {
	t.Setenv(EnvVar, "nonsense")
	if _, err := FromEnv(); err == nil {
		t.Error("a wrong plan was accepted")
	}
}

func TestActions(t *testing.T) {
	plan, err := Parse("source.paused=kill,source.precopy=cut,source.done=error")
	if err != nil {
		t.Fatal(err)
	}
	killed, cut := false, false
	plan = plan.WithKill(func() { killed = true })
	if err := plan.At(SourcePaused, func() {}); !killed || !errors.Is(err, ErrInjected) {
		t.Errorf("kill: killed=%v err=%v", killed, err)
	}
	if err := plan.At(SourcePrecopy, func() { cut = true }); err != nil || !cut {
		t.Errorf("cut: %v, cut=%v", err, cut)
	}
	if err := plan.At(SourceDone, func() {}); !errors.Is(err, ErrInjected) {
		t.Errorf("error: %v", err)
	}
	if err := plan.At(SourcePreflight, func() { t.Error("cut where nothing was planned") }); err != nil {
		t.Error(err)
	}
	var none *Plan
	if err := none.At(SourcePaused, nil); err != nil {
		t.Error(err)
	}
}

// TestPassings: an item acts on its passing and on no other.
func TestPassings(t *testing.T) {
	plan, err := Parse("source.round#2=error,source.round#4=error")
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 5; n++ {
		if err := plan.At(SourceRound, nil); (err != nil) != (n == 2 || n == 4) {
			t.Errorf("passing %d: %v", n, err)
		}
	}
	if n := plan.Passed(SourceRound); n != 5 {
		t.Errorf("passed %d times", n)
	}
}

func TestPointsAreDistinct(t *testing.T) {
	seen := map[Point]bool{}
	for _, p := range Points() {
		if seen[p] {
			t.Errorf("%s is listed twice", p)
		}
		seen[p] = true
	}
}
