package kvm

import (
	"encoding/binary"
	"errors"
	"runtime"
	"testing"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/memory"
)

// The test guests' addresses. Everything below 1 GiB and the first 2 MiB above
// 4 GiB is mapped one to one for CPL 0 and CPL 3, memory or not.
const (
	pml4Addr   = 0x1000
	pdptAddr   = 0x2000
	pdLowAddr  = 0x3000
	pdHighAddr = 0x4000
	codeAddr   = 0x8000
	tableAddr  = 0x9000
	dataAddr   = 0x10000
	mmioAddr   = 0x2000_0000
	highRAM    = 0x1_0000_0000

	lowPages  = 1024
	highPages = 100 // not a multiple of 64: the last word of a bitmap is partial

	donePort = 0xf4
)

// testVM is a VM with memory, vCPUs with the host's CPUID, and the test's
// goroutine bound to its thread.
type testVM struct {
	testing.TB
	sys  *System
	mem  *memory.Guest
	vm   *VM
	cpus []*VCPU
}

// openKVM opens /dev/kvm or skips the test with the reason.
func openKVM(t testing.TB) *System {
	t.Helper()
	sys, err := Open()
	if errors.Is(err, ErrNoDevice) || errors.Is(err, ErrPermission) {
		t.Skipf("needs KVM: %v", err)
	}
	must(t, err)
	t.Cleanup(func() { must(t, sys.Close()) })
	return sys
}

func newTestVM(t testing.TB, o VMOptions, cpus int) *testVM {
	t.Helper()
	m := &testVM{TB: t, sys: openKVM(t)}
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	var err error
	m.mem, err = memory.New([]memory.Region{
		{Base: 0, SizeBytes: lowPages * memory.PageSize}, {Base: highRAM, SizeBytes: highPages * memory.PageSize},
	}, memory.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, m.mem.Close()) })
	m.vm, err = m.sys.CreateVM(o)
	must(t, err)
	t.Cleanup(func() { must(t, m.vm.Close()) })
	must(t, m.vm.MapMemory(m.mem))
	cpuid, err := m.sys.SupportedCPUID()
	must(t, err)
	for id := range cpus {
		c, err := m.vm.CreateVCPU(id)
		must(t, err)
		must(t, c.SetCPUID(cpuid))
		m.cpus = append(m.cpus, c)
	}
	return m
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// load puts page tables and code in memory. Accessed and dirty bits are set
// beforehand, so that the tables never become dirty.
func (m *testVM) load(code []byte) {
	m.Helper()
	const (
		table = 0x67 // present, writable, user, accessed, dirty
		large = 0xe7 // the same, and a 2 MiB page
	)
	entries := map[memory.GPA]uint64{
		pml4Addr: pdptAddr | table, pdptAddr: pdLowAddr | table, pdptAddr + 4*8: pdHighAddr | table,
		pdHighAddr: highRAM | large,
	}
	for i := range uint64(512) {
		entries[memory.GPA(pdLowAddr+8*i)] = i<<21 | large
	}
	for at, entry := range entries {
		must(m, m.mem.StoreUint64(at, entry))
	}
	must(m, m.mem.WriteAt(codeAddr, code))
}

// enter puts the vCPU in 64-bit mode at the code, at CPL 0 or 3, there with the
// right to do port I/O.
func (m *testVM) enter(c *VCPU, cpl uint8) {
	m.Helper()
	s, err := c.Sregs()
	must(m, err)
	code := Segment{Limit: 0xffff_ffff, Selector: 0x10 | uint16(cpl), Typ: 0xb, Present: 1, DPL: cpl, S: 1, L: 1, G: 1}
	data := Segment{Limit: 0xffff_ffff, Selector: 0x18 | uint16(cpl), Typ: 0x3, Present: 1, DPL: cpl, DB: 1, S: 1, G: 1}
	s.CS = code
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	const (
		cr0  = 1<<31 | 1<<16 | 1<<5 | 1<<4 | 1<<1 | 1<<0 // PG WP NE ET MP PE
		cr4  = 1<<18 | 1<<10 | 1<<9 | 1<<5               // OSXSAVE OSXMMEXCPT OSFXSR PAE
		efer = 1<<11 | 1<<10 | 1<<8 | 1<<0               // NXE LMA LME SCE
	)
	s.CR0, s.CR3, s.CR4, s.EFER = cr0, pml4Addr, cr4, efer
	must(m, c.SetSregs(s))
	must(m, c.restoreMPState(&VCPUState{MPState: gokvm.MPStateRunnable})) // others than vCPU 0 wait for a SIPI
	const ioplThree = 3 << 12
	must(m, c.SetRegs(&Regs{RIP: codeAddr, RSP: codeAddr, RFLAGS: ioplThree | 1<<1}))
}

// next runs until an exit and returns it.
func (m *testVM) next(c *VCPU) *Exit {
	m.Helper()
	for {
		err := c.Run()
		switch {
		case err == nil:
			return c.Exit()
		case !errors.Is(err, unix.EINTR):
			m.Fatal(err)
		}
	}
}

// expect runs to an exit for the port.
func (m *testVM) expect(c *VCPU, port uint16) *Exit {
	m.Helper()
	e := m.next(c)
	if e.Reason != ExitIO || e.IO.Port != port {
		regs, err := c.Regs()
		m.Fatalf("%v at RIP %#x (%v), want an access to port %#x", e, regs.RIP, err, port)
	}
	return e
}

// settle completes the last access without running the guest.
func (m *testVM) settle(c *VCPU) {
	m.Helper()
	c.SetImmediateExit(true)
	if err := c.Run(); !errors.Is(err, unix.EINTR) {
		m.Fatalf("KVM_RUN with immediate exit: %v, want EINTR", err)
	}
	c.SetImmediateExit(false)
}

// word reads 8 bytes of guest memory.
func (m *testVM) word(gpa memory.GPA) uint64 {
	m.Helper()
	v, err := m.mem.LoadUint64(gpa)
	must(m, err)
	return v
}

// cat joins machine code.
func cat(parts ...[]byte) []byte {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// movEDX is mov $value,%edx.
func movEDX(value uint32) []byte { return binary.LittleEndian.AppendUint32([]byte{0xba}, value) }

// done is mov $0xf4,%edx; out %al,%dx.
var done = cat(movEDX(donePort), []byte{0xee})
