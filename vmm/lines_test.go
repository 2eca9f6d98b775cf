package vmm

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/images/linescheck"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// TestLines runs the random program on this host's processor, natively: its memory and all that it loads must be
// what the program's model says. What emulates its accesses is judged by the same model.
func TestLines(t *testing.T) {
	all := linescheck.Scalar | linescheck.String | linescheck.SSE | linescheck.Atomic | linescheck.Load |
		linescheck.AVX | linescheck.EVEX | linescheck.Atomic16
	if os.Getenv("FINELINE_TIER") == "svm" {
		t.Log("without AVX and EVEX: in a guest of QEMU's emulated SVM they raise #UD, though XSETBV took them")
		all &^= linescheck.AVX | linescheck.EVEX
	}
	kinds := []linescheck.Kinds{all}
	for k := linescheck.Kinds(1); k <= all; k <<= 1 {
		if k&all != 0 {
			kinds = append(kinds, k)
		}
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
	out := &vmmtest.SerialLog{}
	m := newMachine(t, Config{CPUs: vcpus, SerialOut: out, Boot: BootFiles{Kernel: "builtin:lines", Cmdline: cmdline}})
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	defer m.Stop()
	read := 0
	next := func() string { // a line at a time, so that a fault's is seen and not waited past
		line, _, _ := strings.Cut(waitFor(t, out, read, "\n")[read:], "\n")
		read += len(line) + 1
		return line
	}
	said := next()
	if strings.HasPrefix(said, "lines without ") {
		t.Log(said)
		said = next()
	}
	if strings.Contains(said, "kinds: none is left") {
		t.Skip(said)
	}
	if !strings.HasPrefix(said, "lines ready ") {
		t.Fatalf("said %q", out)
	}
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
		want := fmt.Sprintf("lines round=%d stored=%d mismatches=0", round, stored.Count())
		if said := next(); said != want {
			t.Fatalf("said %q, want %q", out, want)
		}
		if err := model.Check(m.Memory()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLinesTracked: the guest drives the FPGA device through the C library and finds exactly the lines it knows
// of; no locked instruction loses an update, though KVM emulates them; each misuse gets the status that the ABI names.
func TestLinesTracked(t *testing.T) {
	for _, mode := range []string{"diff", "stores", "homed"} {
		for _, options := range []string{"misuse=1 vcpus=1", "vcpus=2 steps=200", "vcpus=2 kinds=atomic pages=2 steps=2000"} {
			cmdline := fmt.Sprintf("track=%s %s seed=%d rounds=2", mode, options, rand.Uint64())
			t.Run(cmdline, func(t *testing.T) { testLinesTracked(t, cmdline) })
		}
	}
}

var trackedRightly = regexp.MustCompile(`(?m)^lines round=\d stored=\d+ mismatches=0\ntrack mode=\w+ round=\d lines=[1-9]\d* missing=0 extra=0$`)

func testLinesTracked(t *testing.T, cmdline string) {
	out := &vmmtest.SerialLog{}
	m := newMachine(t, Config{CPUs: 2, SerialOut: out, Boot: BootFiles{Kernel: "builtin:lines", Cmdline: cmdline}})
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	if o := awaitEnd(t, m); o.Kind != EndedByPowerOff {
		t.Errorf("outcome %+v", o)
	}
	said := out.String()
	if n := len(trackedRightly.FindAllString(said, -1)); n != 2 {
		t.Errorf("%d of 2 rounds went well:\n%s", n, said)
	}
	if strings.Contains(cmdline, "misuse") && !strings.Contains(said, "misuse wrong=0\n") {
		t.Errorf("misuse:\n%s", said)
	}
}
