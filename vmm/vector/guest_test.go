package vector

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/kvm"
)

// The guest's addresses. The first 2 MiB are mapped one to one by pages of 4 KiB.
const (
	pml4Addr = 0x1000
	pdptAddr = 0x2000
	pdAddr   = 0x3000
	ptAddr   = 0x4000
	codeAddr = 0x8000
	dataAddr = 0x10000 // two pages
	ramBytes = 2 << 20

	fsBase, gsBase = 0x1000, 0x2340
	donePort       = 0xf4
)

var done = []byte{0xe6, donePort} // out %al,$0xf4

// guest is a vCPU at CPL 3 whose instructions are run one by one.
type guest struct {
	testing.TB
	mem   *memory.Guest
	vm    *kvm.VM
	cpu   *kvm.VCPU
	xcr0  uint64
	calls int // of Do
}

func (g *guest) must(err error) {
	g.Helper()
	if err != nil {
		g.Fatal(err)
	}
}

// newGuest makes a guest with all vector registers that the host lets guests have.
func newGuest(t testing.TB) *guest {
	t.Helper()
	sys, err := kvm.Open()
	if errors.Is(err, kvm.ErrNoDevice) || errors.Is(err, kvm.ErrPermission) {
		t.Skipf("needs KVM: %v", err)
	}
	g := &guest{TB: t}
	g.must(err)
	t.Cleanup(func() { g.must(sys.Close()) })
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	g.mem, err = memory.New([]memory.Region{{SizeBytes: ramBytes}}, memory.Options{})
	g.must(err)
	t.Cleanup(func() { g.must(g.mem.Close()) })
	g.vm, err = sys.CreateVM(kvm.VMOptions{})
	g.must(err)
	t.Cleanup(func() { g.must(g.vm.Close()) })
	g.must(g.vm.MapMemory(g.mem))
	g.cpu, err = g.vm.CreateVCPU(0)
	g.must(err)
	cpuid, err := sys.SupportedCPUID()
	g.must(err)
	g.must(g.cpu.SetCPUID(cpuid))
	g.enter(vectorsOf(cpuid))
	return g
}

// vectorsOf returns XCR0 with the vector components that a guest can have.
func vectorsOf(cpuid []kvm.CPUIDEntry) uint64 {
	const vectors = 1 | 1<<componentSSE | 1<<componentAVX | 1<<componentOpmask | 1<<componentZMMHigh | 1<<componentHiZMM
	for _, e := range cpuid {
		if e.Function == 0xd && e.Index == 0 {
			return uint64(e.EAX) & vectors
		}
	}
	return 0 // no XSAVE
}

// enter puts the vCPU in 64-bit mode at CPL 3.
func (g *guest) enter(xcr0 uint64) {
	g.Helper()
	const table = 0x67 // present, writable, user, accessed, dirty
	for at, entry := range map[memory.GPA]uint64{pml4Addr: pdptAddr, pdptAddr: pdAddr, pdAddr: ptAddr} {
		g.must(g.mem.StoreUint64(at, entry|table))
	}
	for i := range uint64(512) {
		g.must(g.mem.StoreUint64(memory.GPA(ptAddr+8*i), i<<12|table))
	}
	s, err := g.cpu.State()
	g.must(err)
	code := kvm.Segment{Limit: 0xffff_ffff, Selector: 0x13, Typ: 0xb, Present: 1, DPL: 3, S: 1, L: 1, G: 1}
	data := kvm.Segment{Limit: 0xffff_ffff, Selector: 0x1b, Typ: 0x3, Present: 1, DPL: 3, DB: 1, S: 1, G: 1}
	r := &s.Sregs
	r.CS = code
	r.DS, r.ES, r.FS, r.GS, r.SS = data, data, data, data, data
	r.FS.Base, r.GS.Base = fsBase, gsBase
	r.CR0 = 1<<31 | 1<<16 | 1<<5 | 1<<4 | 1<<1 | 1<<0 // PG WP NE ET MP PE
	r.CR3 = pml4Addr
	r.CR4 = 1<<10 | 1<<9 | 1<<5          // OSXMMEXCPT OSFXSR PAE
	r.EFER = 1<<11 | 1<<10 | 1<<8 | 1<<0 // NXE LMA LME SCE
	if xcr0&(1<<componentAVX) != 0 {
		r.CR4 |= 1 << 18 // OSXSAVE
		s.XCRs.NrXRCS = 1
		s.XCRs.Registers[0].Value = xcr0
	}
	g.xcr0 = xcr0
	g.must(g.cpu.Restore(s))
}

// next runs the guest to an exit.
func (g *guest) next() *kvm.Exit {
	g.Helper()
	for {
		err := g.cpu.Run()
		if err == nil {
			return g.cpu.Exit()
		}
		if !errors.Is(err, unix.EINTR) {
			g.Fatal(err)
		}
	}
}

// access does what KVM hands out.
func (g *guest) access(gpa memory.GPA, data []byte, write bool) error {
	if write {
		return g.mem.WriteAt(gpa, data)
	}
	return g.mem.ReadAt(gpa, data)
}

// result is what an instruction has left.
type result struct {
	regs    kvm.Regs
	vectors [32]register
	data    [2 * memory.PageSize]byte
}

// step runs code from a state that depends on seed alone, with Do for what KVM can't do.
func (g *guest) step(code []byte, regs kvm.Regs, seed uint64) (out result) {
	g.Helper()
	r := rand.NewChaCha8([32]byte{0: byte(seed), 1: byte(seed >> 8)})
	_, _ = r.Read(out.data[:])
	g.must(g.mem.WriteAt(dataAddr, out.data[:]))
	g.must(g.mem.WriteAt(codeAddr, append(slices.Clone(code), done...)))
	regs.RIP, regs.RFLAGS = codeAddr, 3<<12|1<<1 // IOPL 3
	g.must(g.cpu.SetRegs(&regs))
	area, err := g.cpu.XSave()
	g.must(err)
	img := image{bytes: area, offset: g.cpu.XSaveOffset}
	for n := range 32 {
		var v register
		_, _ = r.Read(v[:])
		if g.xcr0>>componentZMMHigh&1 == 0 {
			clear(v[32:])
		}
		if g.xcr0>>componentAVX&1 == 0 {
			clear(v[16:])
		}
		if n < 16 || g.xcr0>>componentHiZMM&1 != 0 {
			g.must(img.setVector(n, &v))
		}
	}
	if g.xcr0>>componentOpmask&1 != 0 {
		var masks [8 * 8]byte
		_, _ = r.Read(masks[:])
		clear(masks[8*2 : 8*3]) // k2: nothing
		g.must(img.store(componentOpmask, 0, masks[:]))
	}
	g.must(g.cpu.SetXSave(area))
	g.finish()

	now, err := g.cpu.Regs()
	g.must(err)
	out.regs = *now
	_, err = g.cpu.XSave()
	g.must(err)
	for n := range out.vectors {
		out.vectors[n] = img.vector(n)
	}
	g.must(g.mem.ReadAt(dataAddr, out.data[:]))
	return out
}

// finish runs to the end of the code.
func (g *guest) finish() {
	g.Helper()
	for {
		switch e := g.next(); {
		case e.Reason == kvm.ExitIO && e.IO.Port == donePort:
			g.cpu.SetImmediateExit(true) // completes the access and runs nothing
			if err := g.cpu.Run(); !errors.Is(err, unix.EINTR) {
				g.Fatalf("KVM_RUN with immediate exit: %v", err)
			}
			g.cpu.SetImmediateExit(false)
			return
		case e.Reason == kvm.ExitMMIO:
			g.must(g.access(memory.GPA(e.MMIO.Addr), e.MMIO.Data, e.MMIO.Write))
		case e.Reason == kvm.ExitInternalError:
			g.calls++
			g.must(Do(g.cpu, e.Instruction(), g.mem, g.access))
		default:
			regs, _ := g.cpu.Regs()
			code := make([]byte, MaxBytes)
			_ = g.mem.ReadAt(codeAddr, code)
			g.Fatalf("%v at RIP %#x of % x", e, regs.RIP, code)
		}
	}
}

func (g *guest) pages(list ...memory.GPA) *memory.PageSet {
	s := g.mem.NewPageSet()
	for _, gpa := range list {
		s.Add(gpa)
	}
	return s
}

// trial is one instruction with registers that make it touch the data pages.
type trial struct {
	sample
	regs kvm.Regs
	seed uint64
}

// aligned says whether the CPU faults where the operand is not aligned to its size.
func (s *sample) aligned() bool {
	switch s.opcode {
	case 0x28, 0x29, 0x2b, 0xe7, 0x2a:
		return true
	case 0x6f, 0x7f:
		return s.prefix == 0x66
	}
	return false
}

// aim changes the displacement or the base register so that the operand is in the data pages,
// often across their border. It reports whether it could.
func (x *trial) aim(r *rand.Rand) bool {
	size := x.memoryBytes()
	target := dataAddr + uint64(r.IntN(2*memory.PageSize-size))
	if chance(r, 2) {
		target = dataAddr + memory.PageSize - uint64(r.IntN(size+1))
	}
	if x.aligned() {
		target &^= uint64(size) - 1
	}
	o := &x.memory
	var gpr [16]uint64
	for i := range gpr {
		// Software KVM emulates, and knows no vectors then, while RSP is no canonical address.
		gpr[i] = uint64(int64(r.Uint64()) >> 24)
	}
	seen := registers{GPR: gpr, RIP: codeAddr, FSBase: fsBase, GSBase: gsBase}
	off := target - o.address(&seen, x.length, x.compression())
	switch {
	case o.Base < 0:
		if o.Disp += int64(off); o.Disp != int64(int32(o.Disp)) {
			return false // with an index it can be out of reach
		}
		x.code = nil
		x.spell()
	case o.Base == o.Index:
		return false
	default:
		seen.GPR[o.Base] += off
	}
	if o.address(&seen, x.length, x.compression()) != target {
		return false // the segment's base took it over 4 GiB
	}
	g := &seen.GPR
	x.regs = kvm.Regs{
		RAX: g[0], RCX: g[1], RDX: g[2], RBX: g[3], RSP: g[4], RBP: g[5], RSI: g[6], RDI: g[7],
		R8: g[8], R9: g[9], R10: g[10], R11: g[11], R12: g[12], R13: g[13], R14: g[14], R15: g[15],
	}
	x.seed = r.Uint64() & 0xffff
	return true
}

// trials returns instructions of every kind that this guest's CPU has.
func (g *guest) trials(r *rand.Rand) (all []trial) {
	everySample(r, 12, nil, func(s sample) {
		has := map[encoding]bool{legacy: true, vex: g.xcr0>>componentAVX&1 != 0, evex: g.xcr0>>componentHiZMM&1 != 0}
		if s.row.lengths == 0 && s.vectorLength != 0 && os.Getenv("FINELINE_TIER") == "svm" {
			return // QEMU 7.2 does not clear bits 128 to 255 in vmovss and vmovsd with VEX.L, as CPUs do
		}
		if x := (trial{sample: s}); has[s.enc] && x.aim(r) {
			all = append(all, x)
		}
	})
	return all
}

// What the CPU does with an instruction where memory is native is done where it is read-only or
// absent: the same registers, the same memory.
func TestSameAsTheCPU(t *testing.T) {
	g := newGuest(t)
	trials := g.trials(randomness(t))
	t.Logf("%d instructions, XCR0 %#x", len(trials), g.xcr0)
	var want []result
	for _, x := range trials {
		want = append(want, g.step(x.code, x.regs, x.seed))
	}
	if g.calls != 0 {
		t.Errorf("%d instructions of native memory exited", g.calls)
	}
	const first, second = dataAddr, dataAddr + memory.PageSize
	for _, tt := range []struct {
		name             string
		readOnly, absent *memory.PageSet
	}{
		{"read-only", g.pages(first, second), nil},
		{"absent", nil, g.pages(first, second)},
		{"native, read-only", g.pages(second), nil},
		{"absent, native", nil, g.pages(first)},
		{"read-only, absent", g.pages(first), g.pages(second)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := *g
			g.TB, g.calls = t, 0
			g.must(g.vm.SetAccess(tt.readOnly, tt.absent))
			for i, x := range trials {
				got := g.step(x.code, x.regs, x.seed)
				if got.regs != want[i].regs {
					t.Errorf("% x: registers %+v, want %+v", x.code, got.regs, want[i].regs)
				}
				for n := range got.vectors {
					if got.vectors[n] != want[i].vectors[n] {
						t.Errorf("% x: register %d\n% x, want\n% x", x.code, n, got.vectors[n], want[i].vectors[n])
					}
				}
				if !bytes.Equal(got.data[:], want[i].data[:]) {
					t.Errorf("% x: other memory than the CPU leaves", x.code)
				}
				if t.Failed() {
					t.FailNow()
				}
			}
			t.Logf("%d calls of Do", g.calls)
		})
	}
}

// What Do leaves to the CPU names the page that stands in the way, and runs once it is native.
func TestUnknownRunsOnceNative(t *testing.T) {
	g := newGuest(t)
	load := []byte{0x66, 0x0f, 0x38, 0x00, 0x03} // pshufb (%rbx),%xmm0
	for _, tt := range []struct {
		name   string
		code   []byte
		absent memory.GPA
	}{
		{"data", load, dataAddr},
		{"code", load, codeAddr},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := *g
			g.TB = t
			regs := kvm.Regs{RBX: dataAddr}
			g.must(g.vm.SetAccess(nil, nil))
			want := g.step(tt.code, regs, 1)
			g.must(g.vm.SetAccess(nil, g.pages(tt.absent)))
			regs.RIP, regs.RFLAGS = codeAddr, 3<<12|1<<1
			g.must(g.cpu.SetRegs(&regs))
			e := g.next()
			t.Log(e)
			err := Do(g.cpu, e.Instruction(), g.mem, g.access)
			var u *UnknownError
			if !errors.As(err, &u) || !slices.Equal(u.Pages, []memory.GPA{tt.absent}) {
				t.Fatalf("%v, want page %#x", err, tt.absent)
			}
			g.must(g.vm.SetAccess(nil, nil))
			g.finish()
			got, err := g.cpu.Regs()
			g.must(err)
			if got.RIP != want.regs.RIP {
				t.Errorf("RIP %#x, want %#x", got.RIP, want.regs.RIP)
			}
		})
	}
}

// RIP is after the instruction and RF is clear as after every instruction; a vCPU that single-steps or
// runs 32-bit code is left alone.
func TestFlagsAndModes(t *testing.T) {
	g := newGuest(t)
	g.must(g.vm.SetAccess(g.pages(dataAddr), nil))
	code := []byte{0xf2, 0x0f, 0x11, 0x03} // movsd %xmm0,(%rbx)
	g.must(g.mem.WriteAt(codeAddr, code))
	start := kvm.Regs{RIP: codeAddr, RBX: dataAddr, RFLAGS: 3<<12 | 1<<1}
	do := func(flags uint64) (*kvm.Regs, error) {
		regs := start
		regs.RFLAGS |= flags
		g.must(g.cpu.SetRegs(&regs))
		err := Do(g.cpu, code, g.mem, g.access)
		now, regsErr := g.cpu.Regs()
		g.must(regsErr)
		return now, err
	}
	if regs, err := do(flagRF); err != nil || regs.RIP != codeAddr+4 || regs.RFLAGS != start.RFLAGS {
		t.Errorf("RIP %#x, RFLAGS %#x, %v", regs.RIP, regs.RFLAGS, err)
	}
	var u *UnknownError
	if regs, err := do(flagTF); !errors.As(err, &u) || !slices.Equal(u.Pages, []memory.GPA{dataAddr}) || regs.RIP != codeAddr {
		t.Errorf("single-stepping: RIP %#x, %v", regs.RIP, err)
	}
	s, err := g.cpu.Sregs()
	g.must(err)
	s.CS.L, s.CS.DB = 0, 1
	g.must(g.cpu.SetSregs(s))
	if regs, err := do(0); !errors.As(err, &u) || !errors.Is(err, errMode) || regs.RIP != codeAddr {
		t.Errorf("32-bit code: RIP %#x, %v", regs.RIP, err)
	}
}

// A page that the guest has not used yet: its entry's flags are set once the store is done, by
// whom ever.
func TestFlagsOfPageTables(t *testing.T) {
	g := newGuest(t)
	const entry = ptAddr + 8*(dataAddr>>12)
	g.must(g.mem.StoreUint64(entry, dataAddr|entryPresent|entryWritable|entryUser))
	g.must(g.vm.RemapMemory())
	g.must(g.vm.SetAccess(g.pages(dataAddr), nil))
	code := append([]byte{0xf2, 0x0f, 0x11, 0x03}, done...) // movsd %xmm0,(%rbx)
	g.must(g.mem.WriteAt(codeAddr, code))
	g.must(g.cpu.SetRegs(&kvm.Regs{RIP: codeAddr, RBX: dataAddr, RFLAGS: 3<<12 | 1<<1}))
	e := g.next()
	err := Do(g.cpu, e.Instruction(), g.mem, g.access)
	t.Logf("%v: %v", e, err)
	if errors.Is(err, ErrNotPermitted) { // KVM or the CPU has left the flags to the CPU
		g.must(g.vm.SetAccess(nil, nil))
	} else {
		g.must(err)
	}
	g.finish()
	v, err := g.mem.LoadUint64(entry)
	g.must(err)
	if v&(entryAccessed|entryDirty) != entryAccessed|entryDirty {
		t.Errorf("entry %#x after a store", v)
	}
}

func BenchmarkStore(b *testing.B) {
	g := newGuest(b)
	if g.xcr0>>componentAVX&1 == 0 {
		b.Skip("needs a host with AVX")
	}
	g.must(g.vm.SetAccess(g.pages(dataAddr), nil))
	for name, code := range map[string][]byte{
		"vmovdqu ymm": {0xc5, 0xfe, 0x7f, 0x03},
		"movdqu xmm":  {0xf3, 0x0f, 0x7f, 0x03},
		"mov":         {0x48, 0x89, 0x03},
	} {
		loop := append(slices.Clone(code), 0xeb, byte(-len(code)-2))
		b.Run(name, func(b *testing.B) {
			g.must(g.mem.WriteAt(codeAddr, loop))
			g.must(g.cpu.SetRegs(&kvm.Regs{RIP: codeAddr, RBX: dataAddr, RFLAGS: 1 << 1}))
			var inDo time.Duration
			for b.Loop() {
				switch e := g.next(); e.Reason {
				case kvm.ExitMMIO:
					g.must(g.access(memory.GPA(e.MMIO.Addr), e.MMIO.Data, e.MMIO.Write))
				case kvm.ExitInternalError:
					start := time.Now()
					g.must(Do(g.cpu, e.Instruction(), g.mem, g.access))
					inDo += time.Since(start)
				default:
					b.Fatal(e)
				}
			}
			b.ReportMetric(float64(inDo.Nanoseconds())/float64(b.N), "ns-in-Do/op")
		})
	}
}
