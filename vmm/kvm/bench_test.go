package kvm

import "testing"

// The floor under every exit: nothing but KVM_RUN and the kernel's own work.
func BenchmarkBareRun(b *testing.B) {
	for _, bench := range []struct {
		name string
		code []byte
	}{
		{"port", cat(movEDX(0x80), []byte{0xee, 0xeb, 0xfd})},                  // 1: out %al,%dx; jmp 1b
		{"mmio", []byte{0xbb, 0x00, 0x00, 0x00, 0x20, 0x89, 0x03, 0xeb, 0xfc}}, // mov $0x20000000,%ebx; 1: mov %eax,(%rbx); jmp 1b
	} {
		b.Run(bench.name, func(b *testing.B) {
			m := newTestVM(b, VMOptions{}, 1)
			c := m.cpus[0]
			m.load(bench.code)
			m.enter(c, 3)
			b.ReportAllocs()
			for b.Loop() {
				if e := m.next(c); e.Reason != ExitIO && e.Reason != ExitMMIO {
					b.Fatal(e)
				}
			}
		})
	}
}

func BenchmarkState(b *testing.B) {
	m := newTestVM(b, VMOptions{}, 1)
	for b.Loop() {
		if _, err := m.cpus[0].State(); err != nil {
			b.Fatal(err)
		}
	}
}
