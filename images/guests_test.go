package images_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/images/dirtycheck"
	"github.com/fineline-vmm/fineline/images/linescheck"
	"github.com/fineline-vmm/fineline/memory"
)

func TestHello(t *testing.T) {
	tests := []struct {
		name, machine, cmdline, last string
		memory                       uint64
		exit                         int
	}{
		{"power off", "pc", `any "text"`, "Hello from", 256 << 20, 0},
		{"q35, debug exit", "q35", "exit=0x15", "Hello from", 5 * gib, 0x15<<1 | 1},
		{"port loop", "pc", "loop=pio count=1000 port=0x81", "loop end count=1000 tsc=", 64 << 20, 0},
		{"mmio loop", "pc", "loop=mmio count=1000", "loop end count=1000 tsc=", 64 << 20, 0},
		// Not canonical: a general protection fault, said and ended by the handler at CPL 0.
		{"fault", "pc", "loop=mmio addr=0x900000000000", "fault vector=13 error=0x0 rip=0x", 64 << 20, 3},
	}
	accelerators(t, func(t *testing.T, accel string) {
		for i, tt := range tests {
			if accel == "kvm" && i > 1 && i < 4 {
				continue // each start takes seconds there, and the loops are no different
			}
			t.Run(tt.name, func(t *testing.T) {
				q := startQEMU(t, qemuOptions{
					accel: accel, guest: "hello", cmdline: tt.cmdline, machine: tt.machine, vcpus: 1, memory: tt.memory,
				})
				hello := q.line("Hello from")
				want := regexp.MustCompile(`^Hello from Fineline: (\d+) MiB of memory, cmdline "(.*)"$`)
				m := want.FindStringSubmatch(hello)
				if m == nil || m[1] != fmt.Sprint(tt.memory>>20-1) || m[2] != tt.cmdline {
					t.Errorf("said %q", hello)
				}
				if tt.last != "Hello from" {
					q.line(tt.last)
				}
				if status := q.exit(); status != tt.exit {
					t.Errorf("status %d, want %d", status, tt.exit)
				}
			})
		}
	})
}

func TestDirty(t *testing.T) {
	tests := []struct {
		pattern dirtycheck.Pattern
		cmdline string
		memory  uint64
		vcpus   int
	}{
		{dirtycheck.Zipf, "rate=0 lines=64 pages=300 base=0x100000000 seed=0xfedcba9876543210", 5 * gib, 4},
		{dirtycheck.Seq, "rate=0 lines=3 pages=1000 bytes=13 verify=0", 256 << 20, 4},
		{dirtycheck.Random, "rate=200000 lines=1 pages=5000 bytes=8 table=0", 256 << 20, 4},
		{dirtycheck.Random, "", 64 << 20, 1},
		{dirtycheck.Stride, "rate=0 lines=1 pages=3001", 64 << 20, 2},
		{dirtycheck.Cluster, "rate=0 lines=1 pages=3001", 64 << 20, 2},
	}
	accelerators(t, func(t *testing.T, accel string) {
		for i, tt := range tests {
			if accel == "kvm" && i > 1 {
				continue // each start takes seconds there
			}
			t.Run(fmt.Sprintf("%v, %d vCPUs, %d MiB", tt.pattern, tt.vcpus, tt.memory>>20), func(t *testing.T) {
				needMemory(t, tt.memory)
				testDirty(t, qemuOptions{
					accel: accel, guest: "dirty", machine: "pc", vcpus: tt.vcpus, memory: tt.memory,
					cmdline: fmt.Sprintf("pattern=%v vcpus=%d progress=0 %s", tt.pattern, tt.vcpus, tt.cmdline),
				})
			})
		}
	})
}

// The memory is sparse; but a host that has less than the guest in all would be pushed around.
func needMemory(t *testing.T, size uint64) {
	t.Helper()
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	if total := info.Totalram * uint64(info.Unit); total < size {
		t.Skipf("a guest of %d MiB on a host of %d MiB", size>>20, total>>20)
	}
}

// The guest's check, and ours at instants it does not choose: between any two instructions of any vCPU.
func testDirty(t *testing.T, o qemuOptions) {
	q := startQEMU(t, o)
	if ready := q.line("dirty ready"); !strings.Contains(ready, fmt.Sprintf("vcpus=%d ", o.vcpus)) {
		t.Errorf("said %q", ready)
	}
	var steps uint64
	inFlight := 0
	for range 30 {
		q.command("stop")
		r, err := dirtycheck.Check(q, 5)
		if err != nil {
			t.Fatal(err)
		}
		if r.Mismatches != 0 || r.GuestMismatches() != 0 {
			t.Fatalf("after %d steps: %d mismatches: %v", r.Steps(), r.Mismatches, r.Details)
		}
		if r.Steps() < steps {
			t.Fatalf("steps went from %d to %d", steps, r.Steps())
		}
		steps = r.Steps()
		for _, v := range r.VCPUs {
			inFlight += int(v.Next - v.Done)
		}
		q.command("cont")
	}
	t.Logf("%d steps, %d times a store was in progress", steps, inFlight)
	for range 2 {
		q.send("c\n")
		if line := q.line("check steps="); !strings.HasSuffix(line, " mismatches=0") {
			t.Errorf("said %q", line)
		}
	}
	q.send("s")
	if line := q.line("dirty steps="); !strings.HasSuffix(line, " mismatches=0") {
		t.Errorf("said %q", line)
	}
	q.send("q")
	if line := q.line("check steps="); !strings.HasSuffix(line, " mismatches=0") {
		t.Errorf("said %q", line)
	}
	if status := q.exit(); status != 0 {
		t.Errorf("status %d", status)
	}
}

// Lines damaged from outside are found by the guest and by us, at the same address.
func TestDirtyFindsDamage(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		if accel != "tcg" {
			t.Skip("the same code as under tcg")
		}
		q := startQEMU(t, qemuOptions{
			accel: accel, guest: "dirty", machine: "pc", vcpus: 2, memory: 64 << 20,
			cmdline: "vcpus=2 pages=16 lines=2 pattern=seq rate=1 verify=0",
		})
		q.line("dirty ready")
		q.command("stop")
		s, err := dirtycheck.ReadState(q)
		if err != nil {
			t.Fatal(err)
		}
		// At rate 1 only the first lines were written, and the last will not be for a long time.
		at := s.Params.Base + 15*memory.PageSize + 15*64
		if _, err := q.mem.WriteAt([]byte("stray"), int64(at)); err != nil {
			t.Fatal(err)
		}
		r, err := dirtycheck.Check(q, 5)
		if err != nil {
			t.Fatal(err)
		}
		if r.Mismatches != 1 || r.Details[0].Address != at || r.Details[0].Kind != dirtycheck.Corrupt {
			t.Errorf("%d mismatches: %v", r.Mismatches, r.Details)
		}
		q.command("cont")
		q.send("q")
		want := fmt.Sprintf("mismatches=1 first line=%#x vcpu=0 step=0 offset=0 expected=0x0 found=0x7961727473", at)
		if line := q.line("check steps="); !strings.HasSuffix(line, want) {
			t.Errorf("said %q, want the end %q", line, want)
		}
		if status := q.exit(); status != 0 {
			t.Errorf("status %d", status)
		}
	})
}

// TestLines: QEMU, too, does to memory what the program says; package vmm does the same with many seeds.
func TestLines(t *testing.T) {
	tests := []struct {
		vcpus   int
		cmdline string
	}{
		{2, "vcpus=2 pages=9 steps=3000 seed=0xfedcba9876543210 kinds=scalar,string,sse,atomic,load,atomic16"},
		{1, ""},
	}
	accelerators(t, func(t *testing.T, accel string) {
		for i, tt := range tests {
			if accel == "kvm" && i > 0 {
				continue // each start takes seconds there
			}
			t.Run(fmt.Sprintf("%d vCPUs", tt.vcpus), func(t *testing.T) {
				testLines(t, qemuOptions{
					accel: accel, guest: "lines", machine: "pc", vcpus: tt.vcpus, memory: 64 << 20, cmdline: tt.cmdline,
				})
			})
		}
	})
}

func testLines(t *testing.T, o qemuOptions) {
	q := startQEMU(t, o)
	q.line("lines ready")
	state, err := linescheck.Read(q)
	if err != nil {
		t.Fatal(err)
	}
	model, err := linescheck.New(state.Options)
	if err != nil {
		t.Fatal(err)
	}
	for round := 1; round <= 5; round++ {
		q.send("g")
		stored, changed := model.Round()
		for page, mask := range stored {
			if changed[page]&^mask != 0 {
				t.Errorf("page %#x: lines %#x changed, %#x stored to", uint64(page), changed[page], mask)
			}
		}
		want := fmt.Sprintf("lines round=%d stored=%d mismatches=0", round, stored.Count())
		if said := q.line("lines round="); said != want {
			t.Fatalf("said %q, want %q", said, want)
		}
		if err := model.Check(q); err != nil {
			t.Fatal(err)
		}
	}
	q.send("q")
	if status := q.exit(); status != 0 {
		t.Errorf("status %d", status)
	}
}

func TestLinesRefuses(t *testing.T) {
	tests := []struct{ name, cmdline, want string }{
		{"kind", "kinds=scalar,vector", `option "kinds=scalar,vector"`},
		{"no kind", "kinds=", `option "kinds="`},
		{"mode", "track=different", `option "track=different"`},
		{"one page", "pages=1", `option "pages=1"`},
		{"no tracker", "track=diff", "track find status=256 error: no Fineline tracker on PCI bus 0"},
	}
	accelerators(t, func(t *testing.T, accel string) {
		if accel != "tcg" {
			t.Skip("the same code as under tcg")
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				q := startQEMU(t, qemuOptions{
					accel: accel, guest: "lines", cmdline: tt.cmdline, machine: "pc", vcpus: 1, memory: 64 << 20,
				})
				q.line(tt.want)
				if status := q.exit(); status != 3 {
					t.Errorf("status %d instead of debug exit with 1", status)
				}
			})
		}
	})
}

func TestDirtyRefuses(t *testing.T) {
	tests := []struct{ name, cmdline, want string }{
		{"misspelt", "patern=seq", `option "patern=seq": error: unknown, or its value is out of range`},
		{"not a number", "pages=many", `option "pages=many"`},
		{"too large", "lines=65", `option "lines=65"`},
		{"overflow", "seed=18446744073709551616", `option "seed=18446744073709551616"`},
		{"pattern", "pattern=zip", `option "pattern=zip"`},
		{"inside the image", "base=0x100000", "error: base: "},
		{"no such memory", "base=0x100000000", "error: the pages do not fit into memory"},
		{"no room", "pages=100000", "error: the pages do not fit into memory"},
		{"no room for tables", "pages=30000000 lines=64", "error: not enough memory"},
		{"too many lines", "pages=2000000000 lines=64", "error: pages times lines"},
		{"too few vCPUs", "vcpus=2", "error: fewer vCPUs came up"},
	}
	accelerators(t, func(t *testing.T, accel string) {
		if accel != "tcg" {
			t.Skip("the same code as under tcg")
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				q := startQEMU(t, qemuOptions{
					accel: accel, guest: "dirty", cmdline: tt.cmdline, machine: "pc", vcpus: 1, memory: 64 << 20,
				})
				q.line(tt.want)
				if status := q.exit(); status != 3 {
					t.Errorf("status %d instead of debug exit with 1", status)
				}
			})
		}
	})
}
