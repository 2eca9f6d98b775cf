package vmm

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/images/linescheck"
)

// TestLines runs the random program on this host's processor, natively: its memory and all that it loads must be
// what the program's model says. What emulates its accesses is judged by the same model.
func TestLines(t *testing.T) {
	all := linescheck.Scalar | linescheck.String | linescheck.SSE | linescheck.Atomic | linescheck.Load |
		linescheck.AVX | linescheck.EVEX | linescheck.Atomic16
	kinds := []linescheck.Kinds{all}
	for k := linescheck.Kinds(1); k <= all; k <<= 1 {
		kinds = append(kinds, k)
	}
	for _, k := range kinds {
		for vcpus := 1; vcpus <= 2; vcpus++ {
			for range max(1, repeats(2)) {
				seed := rand.Uint64()
				cmdline := fmt.Sprintf("vcpus=%d kinds=%v seed=%d pages=%d steps=%d", vcpus, k, seed, 2+seed%30, 1+seed>>16%2000)
				t.Run(cmdline, func(t *testing.T) { testLines(t, vcpus, cmdline) })
			}
		}
	}
}

func testLines(t *testing.T, vcpus int, cmdline string) {
	out := newSerialLog()
	m := newMachine(t, Config{CPUs: vcpus, SerialOut: out, Boot: BootFiles{Kernel: "builtin:lines", Cmdline: cmdline}})
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	defer m.Stop()
	if said := out.waitFor(t, 0, "\n"); strings.Contains(said, "lines without") {
		if said = out.waitFor(t, len(said), "\n"); strings.Contains(said, "none is left") {
			t.Skip(said)
		}
	}
	out.waitFor(t, 0, "lines ready")
	state, err := linescheck.Read(m.Memory())
	if err != nil {
		t.Fatal(err)
	}
	model, err := linescheck.New(state.Options)
	if err != nil {
		t.Fatal(err)
	}
	for round := 1; round <= 5; round++ {
		if err := m.Feed(t.Context(), []byte("g")); err != nil {
			t.Fatal(err)
		}
		stored, _ := model.Round()
		out.waitFor(t, 0, fmt.Sprintf("lines round=%d stored=%d mismatches=0\n", round, stored.Count()))
		if err := model.Check(m.Memory()); err != nil {
			t.Fatal(err)
		}
	}
}
