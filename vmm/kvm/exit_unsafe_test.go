package kvm

import (
	"bytes"
	"encoding/binary"
	"testing"
	"unsafe"
)

// fakeRun is a vCPU whose kvm_run page the test writes.
func fakeRun(reason ExitReason, fill func(union []byte)) *VCPU {
	c := &VCPU{run: make([]byte, 2*4096)}
	c.page = (*runPage)(unsafe.Pointer(unsafe.SliceData(c.run)))
	c.page.exitReason = uint32(reason)
	fill(c.page.payload[:])
	return c
}

func TestDecode(t *testing.T) {
	le := binary.LittleEndian
	none := func([]byte) {}
	cases := []struct {
		name string
		c    *VCPU
		text string
		data []byte // of IO or MMIO
	}{
		{"string out", fakeRun(ExitIO, func(u []byte) {
			u[0], u[1] = 1, 2
			le.PutUint16(u[2:], 0x3f8)
			le.PutUint32(u[4:], 3)
			le.PutUint64(u[8:], 4096)
		}), "KVM_EXIT_IO write port 0x3f8, 3 x 2 bytes", make([]byte, 6)},
		{"MMIO read", fakeRun(ExitMMIO, func(u []byte) {
			le.PutUint64(u, 0xfed0_0000)
			le.PutUint32(u[16:], 4)
		}), "KVM_EXIT_MMIO read 0xfed00000, 4 bytes", make([]byte, 4)},
		{"MMIO write", fakeRun(ExitMMIO, func(u []byte) {
			le.PutUint64(u, 0xfed0_0000)
			copy(u[8:], "ab")
			le.PutUint32(u[16:], 2)
			u[20] = 1
		}), "KVM_EXIT_MMIO write 0xfed00000, 2 bytes", []byte("ab")},
		{"halt", fakeRun(ExitHLT, none), "KVM_EXIT_HLT", nil},
		{"interrupted", fakeRun(ExitIntr, none), "KVM_EXIT_INTR", nil},
		{"shutdown", fakeRun(ExitShutdown, none), "KVM_EXIT_SHUTDOWN", nil},
		{"ring full", fakeRun(ExitDirtyRingFull, none), "KVM_EXIT_DIRTY_RING_FULL", nil},
		{"system event", fakeRun(ExitSystemEvent, func(u []byte) { u[0] = SystemEventReset }), "KVM_EXIT_SYSTEM_EVENT 2", nil},
		{"fail entry", fakeRun(ExitFailEntry, func(u []byte) { le.PutUint64(u, 0x8000_0021) }), "KVM_EXIT_FAIL_ENTRY, hardware reason 0x80000021", nil},
		{"unknown", fakeRun(ExitUnknown, func(u []byte) { u[0] = 9 }), "KVM_EXIT_UNKNOWN, hardware reason 0x9", nil},
		{"newer than this list", fakeRun(99, none), "KVM_EXIT_99", nil},
		{"emulation", fakeRun(ExitInternalError, func(u []byte) {
			le.PutUint32(u, InternalEmulation)
			le.PutUint32(u[4:], 3)
			u[8], u[16] = 1, 2
			copy(u[17:], []byte{0x0f, 0x0b})
		}), "KVM_EXIT_INTERNAL_ERROR, emulation failed, instruction bytes 0f 0b", nil},
		{"emulation, no bytes", fakeRun(ExitInternalError, func(u []byte) { u[0] = InternalEmulation }),
			"KVM_EXIT_INTERNAL_ERROR, emulation failed", nil},
		{"emulation, wrong count", fakeRun(ExitInternalError, func(u []byte) {
			u[0], u[4], u[8], u[16] = InternalEmulation, 255, 1, 255
		}), "KVM_EXIT_INTERNAL_ERROR, emulation failed, instruction bytes 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00", nil},
		{"delivery", fakeRun(ExitInternalError, func(u []byte) { u[0], u[4], u[8] = InternalDelivery, 1, 7 }),
			"KVM_EXIT_INTERNAL_ERROR, exit while an event was delivered, data [0x7]", nil},
		{"unknown suberror", fakeRun(ExitInternalError, func(u []byte) { u[0] = 77 }), "KVM_EXIT_INTERNAL_ERROR, suberror 77", nil},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			e := tc.c.Exit()
			if got := e.String(); got != tc.text {
				t.Errorf("got  %q\nwant %q", got, tc.text)
			}
			data := e.IO.Data
			if e.Reason == ExitMMIO {
				data = e.MMIO.Data
			}
			if !bytes.Equal(data, tc.data) {
				t.Errorf("data % x, want % x", data, tc.data)
			}
		})
	}
}
