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
	for range repeats(40) {
		seed := rand.Uint64()
		vcpus, pages := 1+int(seed%2), 2+int(seed>>8%30)
		cmdline := fmt.Sprintf("seed=%d vcpus=%d pages=%d steps=%d kinds=%v", seed, vcpus, pages, 1+seed>>16%2000,
			kinds[seed>>32%uint64(len(kinds))])
		t.Run(cmdline, func(t *testing.T) { testLines(t, vcpus, cmdline) })
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
