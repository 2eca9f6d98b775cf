package vmm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/images"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// testDeadline only ends a test that hangs; no result depends on it. Linux in an
// emulated machine takes a minute to boot.
const testDeadline = 4 * time.Minute

// waitFor returns all of out when text has appeared after its first skip bytes.
func waitFor(t testing.TB, out *vmmtest.SerialLog, skip int, text string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testDeadline)
	defer cancel()
	all, err := out.Await(ctx, func(all string) bool { return strings.Contains(all[skip:], text) })
	if err != nil {
		t.Fatalf("no %q in the serial output:\n%s", text, all)
	}
	return all
}

// repeats is how often a test looks for a race: less often under emulation, where
// everything is slow.
func repeats(n int) int {
	if os.Getenv("FINELINE_TIER") == "svm" {
		return n / 10
	}
	return n
}

// newMachine builds and boots a machine that the test closes.
func newMachine(t testing.TB, cfg Config) *Machine {
	t.Helper()
	vmmtest.NeedKVM(t)
	if cfg.CPUs == 0 {
		cfg.CPUs = 1
	}
	if cfg.MemoryBytes == 0 {
		cfg.MemoryBytes = 64 << 20
	}
	if cfg.CPUModel == "" {
		cfg.CPUModel = CPUHost
	}
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := m.Boot(); err != nil {
		t.Fatal(err)
	}
	return m
}

func awaitEnd(t *testing.T, m *Machine) Outcome {
	t.Helper()
	select {
	case <-m.Done():
		return m.Outcome()
	case <-time.After(testDeadline):
		t.Fatal("the machine did not end")
		panic("unreachable")
	}
}

func TestHello(t *testing.T) {
	for _, model := range []CPUModel{CPUHost, CPUBaseline} {
		t.Run(string(model), func(t *testing.T) {
			out := &vmmtest.SerialLog{}
			m := newMachine(t, Config{CPUModel: model, SerialOut: out, Boot: BootFiles{Kernel: "builtin:hello", Cmdline: "greetings"}})
			if err := m.Resume(); err != nil {
				t.Fatal(err)
			}
			if o := awaitEnd(t, m); o.Kind != EndedByPowerOff {
				t.Errorf("outcome %+v", o)
			}
			if !strings.Contains(out.String(), "Hello from Fineline") || !strings.Contains(out.String(), "greetings") {
				t.Errorf("serial output %q", out)
			}
		})
	}
}

func TestHelloDebugExit(t *testing.T) {
	m := newMachine(t, Config{Boot: BootFiles{Kernel: "builtin:hello", Cmdline: "exit=21"}})
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	if o := awaitEnd(t, m); o.Kind != EndedByDebugExit || o.DebugExitCode != 21<<1|1 {
		t.Errorf("outcome %+v", o)
	}
}

func TestOrderOfCalls(t *testing.T) {
	vmmtest.NeedKVM(t)
	m, err := New(Config{CPUs: 2, MemoryBytes: 16 << 20, CPUModel: CPUHost, Boot: BootFiles{Kernel: "builtin:hello"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Resume(); err == nil {
		t.Error("a machine without a guest was resumed")
	}
	if _, err := m.Save(true); !errors.Is(err, errNotPaused) {
		t.Errorf("save before boot: %v", err)
	}
	m.Stop()
	m.Stop()
	if err := m.Resume(); !errors.Is(err, ErrStopped) {
		t.Errorf("resume after stop: %v", err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

// TestPathsAreAbsolute: a reset may come in a process that works elsewhere.
func TestPathsAreAbsolute(t *testing.T) {
	vmmtest.NeedKVM(t)
	image, _ := images.Builtin("hello")
	t.Chdir(t.TempDir())
	if err := os.WriteFile("hello.elf", image, 0o600); err != nil {
		t.Fatal(err)
	}
	full, err := filepath.Abs("hello.elf")
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t, Config{CPUs: 1, MemoryBytes: 64 << 20, Boot: BootFiles{Kernel: "hello.elf"}})
	if got := m.Config().Boot.Kernel; got != full {
		t.Errorf("the machine knows %q, want %q", got, full)
	}
}
