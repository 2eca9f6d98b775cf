package kvm

import (
	"bytes"
	"errors"
	"runtime"
	"testing"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"
)

var cpls = []struct {
	name string
	cpl  uint8
}{{"cpl0", 0}, {"cpl3", 3}}

func TestPortExits(t *testing.T) {
	for _, level := range cpls {
		t.Run(level.name, func(t *testing.T) {
			m := newTestVM(t, VMOptions{}, 1)
			c := m.cpus[0]
			m.load(cat(
				movEDX(0x3f8),
				[]byte{0xb0, 0x41, 0xee}, // mov $0x41,%al; out %al,%dx
				[]byte{0xed, 0x89, 0x04, 0x25, 0x00, 0x00, 0x01, 0x00}, // in %dx,%eax; mov %eax,0x10000
				[]byte{0xbe, 0x00, 0x01, 0x01, 0x00},                   // mov $0x10100,%esi
				[]byte{0xb9, 0x05, 0x00, 0x00, 0x00},                   // mov $5,%ecx
				[]byte{0x66, 0xf3, 0x6f},                               // rep outsw
				[]byte{0xbf, 0x00, 0x02, 0x01, 0x00},                   // mov $0x10200,%edi
				[]byte{0xb9, 0x03, 0x00, 0x00, 0x00},                   // mov $3,%ecx
				[]byte{0xf3, 0x6c},                                     // rep insb
				done))
			text := []byte("0123456789")
			must(t, m.mem.WriteAt(dataAddr+0x100, text))
			m.enter(c, level.cpl)

			e := m.expect(c, 0x3f8)
			if !e.IO.Write || e.IO.Size != 1 || e.IO.Count != 1 || string(e.IO.Data) != "A" {
				t.Errorf("out: %v, data %q", e, e.IO.Data)
			}
			e = m.expect(c, 0x3f8)
			if e.IO.Write || e.IO.Size != 4 || e.IO.Count != 1 || len(e.IO.Data) != 4 {
				t.Errorf("in: %v", e)
			}
			copy(e.IO.Data, []byte{1, 2, 3, 4})

			// KVM may hand a string out in one exit or in several.
			var sent []byte
			for len(sent) < len(text) {
				e = m.expect(c, 0x3f8)
				if !e.IO.Write || e.IO.Size != 2 || len(e.IO.Data) != 2*e.IO.Count || e.IO.Count < 1 {
					t.Fatalf("outs: %v", e)
				}
				sent = append(sent, e.IO.Data...)
			}
			if !bytes.Equal(sent, text) {
				t.Errorf("outs sent %q, want %q", sent, text)
			}
			want := []byte("xyz")
			for left := want; len(left) > 0; {
				e = m.expect(c, 0x3f8)
				if e.IO.Write || e.IO.Size != 1 {
					t.Fatalf("ins: %v", e)
				}
				left = left[copy(e.IO.Data, left):]
			}
			m.expect(c, donePort)
			if got := m.word(dataAddr); got != 0x0403_0201 {
				t.Errorf("in gave the guest %#x", got)
			}
			got := make([]byte, len(want))
			must(t, m.mem.ReadAt(dataAddr+0x200, got))
			if !bytes.Equal(got, want) {
				t.Errorf("ins gave the guest %q, want %q", got, want)
			}
		})
	}
}

func TestMMIOExits(t *testing.T) {
	for _, level := range cpls {
		t.Run(level.name, func(t *testing.T) {
			m := newTestVM(t, VMOptions{}, 1)
			c := m.cpus[0]
			m.load(cat(
				[]byte{0xbb, 0x00, 0x00, 0x00, 0x20},                               // mov $0x20000000,%ebx
				[]byte{0x48, 0xb8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11}, // mov $0x1122334455667788,%rax
				[]byte{0x48, 0x89, 0x03},                                           // mov %rax,(%rbx)
				[]byte{0x8b, 0x4b, 0x04},                                           // mov 4(%rbx),%ecx
				[]byte{0xc6, 0x43, 0x01, 0x5a},                                     // movb $0x5a,1(%rbx)
				[]byte{0x89, 0x0c, 0x25, 0x00, 0x00, 0x01, 0x00},                   // mov %ecx,0x10000
				done))
			m.enter(c, level.cpl)
			steps := []struct {
				addr  uint64
				write bool
				data  []byte
			}{
				{mmioAddr, true, []byte{0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11}},
				{mmioAddr + 4, false, []byte{0xef, 0xbe, 0xad, 0xde}},
				{mmioAddr + 1, true, []byte{0x5a}},
			}
			for _, want := range steps {
				e := m.next(c)
				if e.Reason != ExitMMIO || e.MMIO.Addr != want.addr || e.MMIO.Write != want.write || len(e.MMIO.Data) != len(want.data) {
					t.Fatalf("%v, want %+v", e, want)
				}
				if !want.write {
					copy(e.MMIO.Data, want.data)
				} else if !bytes.Equal(e.MMIO.Data, want.data) {
					t.Errorf("guest wrote % x to %#x, want % x", e.MMIO.Data, want.addr, want.data)
				}
			}
			m.expect(c, donePort)
			if got := m.word(dataAddr); got != 0xdead_beef {
				t.Errorf("load gave the guest %#x", got)
			}
		})
	}
}

func TestShutdownExit(t *testing.T) {
	m := newTestVM(t, VMOptions{}, 1)
	m.load([]byte{0x0f, 0x0b}) // ud2, and no IDT
	m.enter(m.cpus[0], 3)
	if e := m.next(m.cpus[0]); e.Reason != ExitShutdown {
		t.Errorf("%v, want %v", e, ExitShutdown)
	}
}

// An instruction that KVM can't emulate, at any CPL: its bytes are in the exit.
func TestInternalErrorExit(t *testing.T) {
	for _, level := range cpls {
		t.Run(level.name, func(t *testing.T) {
			m := newTestVM(t, VMOptions{}, 1)
			if level.cpl == 3 && m.sys.capability(gokvm.CapExitOnEmulationFailure) == 0 {
				t.Skip("without KVM_CAP_EXIT_ON_EMULATION_FAILURE this is an exception in the guest")
			}
			// SSSE3 with a memory operand, which KVM's emulator does not know. (Nor does it know
			// VEX, but nested guests in QEMU 7.2 have no AVX.)
			insn := []byte{0x66, 0x0f, 0x38, 0x00, 0x03}            // pshufb (%rbx),%xmm0
			m.load(cat([]byte{0xbb, 0x00, 0x00, 0x00, 0x20}, insn)) // mov $0x20000000,%ebx
			m.enter(m.cpus[0], level.cpl)
			e := m.next(m.cpus[0])
			t.Log(e)
			if e.Reason != ExitInternalError || e.InternalSuberror != InternalEmulation {
				t.Fatalf("%v, want an emulation failure", e)
			}
			if got := e.Instruction(); !bytes.HasPrefix(got, insn) {
				t.Errorf("instruction bytes % x, want % x at their start", got, insn)
			}
		})
	}
}

// enableAVX sets XCR0 so that the guest may use ymm registers, or skips.
func (m *testVM) enableAVX(c *VCPU) {
	m.Helper()
	const x87, sse, avx = 1, 2, 4
	c.scratch.xcrs.NrXRCS = 1
	c.scratch.xcrs.Registers[0].Value = x87 | sse | avx
	if err := c.restoreFPU(&VCPUState{XCRs: c.scratch.xcrs, XSave: make([]byte, xsaveHeaderBytes)}); err != nil {
		m.Skipf("needs a host with AVX: %v", err)
	}
}

// A kick that arrives at any instant, before, while or after KVM_RUN is entered,
// must end it. A lost one hangs this test.
func TestKickIsNeverLost(t *testing.T) {
	const kicks = 3000
	m := newTestVM(t, VMOptions{}, 1)
	c := m.cpus[0]
	m.load([]byte{0xeb, 0xfe}) // jmp .
	m.enter(c, 3)

	tid := unix.Gettid()
	ready, kicked := make(chan struct{}), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for range ready {
			c.SetImmediateExit(true)
			if err := unix.Tgkill(unix.Getpid(), tid, unix.SIGURG); err != nil {
				t.Error(err)
			}
			kicked <- struct{}{}
		}
	}()
	defer close(ready)
	for i := range kicks {
		ready <- struct{}{}
		for {
			if err := c.Run(); !errors.Is(err, unix.EINTR) {
				t.Fatalf("kick %d: KVM_RUN returned %v", i, err)
			}
			// A preemption signal of the Go runtime looks the same; only the kick has
			// its other half in kicked.
			select {
			case <-kicked:
			default:
				continue
			}
			break
		}
		c.SetImmediateExit(false)
	}
}

func TestImmediateExit(t *testing.T) {
	m := newTestVM(t, VMOptions{}, 1)
	c := m.cpus[0]
	m.load(cat(done, done))
	m.enter(c, 3)
	c.SetImmediateExit(true)
	for range 3 {
		if err := c.Run(); !errors.Is(err, unix.EINTR) {
			t.Fatalf("KVM_RUN: %v, want EINTR", err)
		}
	}
	if regs, err := c.Regs(); err != nil || regs.RIP != codeAddr {
		t.Errorf("the guest ran to %#x (%v)", regs.RIP, err)
	}
	c.SetImmediateExit(false)
	m.expect(c, donePort)
	must(t, c.Close())
	c.SetImmediateExit(true) // after Close: nothing happens
	must(t, c.Close())
}
