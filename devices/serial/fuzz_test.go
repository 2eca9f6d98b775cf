package serial

import (
	"encoding/json"
	"testing"
)

// fuzzOps operations of at most 255 bytes cannot fill the queue, however slow the host.
const fuzzOps = QueueBytes / 256

// FuzzSerial is a guest that does anything, a host that types, and a machine that is
// saved and restored in between, against what must always hold.
func FuzzSerial(f *testing.F) {
	f.Add([]byte{0, 1, 0x0f, 0, 2, 0xc1, 0, 0, 'a', 1, 2, 0, 2, 3, 0, 1, 0, 0, 3, 0, 0, 1, 5, 0})
	f.Add([]byte{0, 4, 0x10, 0, 0, 'a', 0, 0, 'b', 1, 5, 0, 3, 0, 0, 1, 0, 0, 0, 4, 0x1f, 1, 6, 0})
	f.Add([]byte{4, 200, 1, 4, 255, 2, 3, 0, 0, 5, 1, 2, 1, 5, 0})
	f.Fuzz(func(t *testing.T, ops []byte) {
		p := newPort(t)
		var sent, arrived []byte
		ops = ops[:min(len(ops), fuzzOps*3)]
		for ; len(ops) >= 3; ops = ops[3:] {
			reg, v := uint64(ops[1]%SizeBytes), ops[2]
			switch ops[0] % 6 {
			case 0:
				sent = append(sent, expect(p, reg, v)...)
				p.out(reg, v)
			case 1:
				p.in(reg)
			case 2:
				if p.Feed(make([]byte, ops[1])) > fifoBytes {
					t.Fatal("took more than fits")
				}
			case 3:
				next := move(t, p)
				arrived = append(arrived, p.String()...)
				p = next
			case 4:
				for i := range int(ops[1]) {
					sent = append(sent, expect(p, regData, byte(i))...)
					p.out(regData, byte(i))
				}
			case 5:
				p.Pause()
				p.Resume()
			}
			invariants(t, p)
		}
		p.flush()
		arrived = append(arrived, p.String()...)
		if string(arrived) != string(sent) {
			t.Fatalf("sent %q, arrived %q", sent, arrived)
		}
	})
}

// expect returns what a write adds to the output.
func expect(p *port, reg uint64, v byte) []byte {
	p.Device.mu.Lock()
	defer p.Device.mu.Unlock()
	if reg != regData || p.lcr&lcrDLAB != 0 || p.mcr&mcrLoop != 0 {
		return nil
	}
	return []byte{v}
}

// move saves p into a new port, as a migration does, by way of JSON.
func move(t *testing.T, p *port) *port {
	p.Pause()
	s := p.State()
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back State
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	next := newPort(t)
	if err := next.Restore(back); err != nil {
		t.Fatalf("own state refused: %v", err)
	}
	if again, _ := json.Marshal(next.State()); string(again) != string(raw) {
		t.Fatalf("state changed by restore:\n%s\n%s", raw, again)
	}
	p.Close()
	next.Resume()
	return next
}

func invariants(t *testing.T, p *port) {
	t.Helper()
	p.Device.mu.Lock()
	defer p.Device.mu.Unlock()
	if p.irq() != p.level || p.level != (p.cause() != iirNone) {
		t.Fatalf("line %v, level %v, cause %#x", p.irq(), p.level, p.cause())
	}
	if len(p.rx) > fifoBytes || p.rxRoom() < 0 || cap(p.rx) != fifoBytes {
		t.Fatalf("%d bytes received, room for %d, cap %d", len(p.rx), p.rxRoom(), cap(p.rx))
	}
	if p.tx.size < 0 || p.tx.size > QueueBytes || p.threPending && !p.thre() {
		t.Fatalf("%d bytes to send, pending %v", p.tx.size, p.threPending)
	}
	s := State{IER: p.ier, FCR: p.fcr, LCR: p.lcr, MCR: p.mcr, MSR: p.msr, RX: p.rx}
	if err := s.check(); err != nil {
		t.Fatal(err)
	}
}

// FuzzRestore gives Restore states from hostile files: refused, or a working port.
func FuzzRestore(f *testing.F) {
	f.Add([]byte(`{"msr":176}`))
	f.Add([]byte(`{"ier":15,"fcr":193,"mcr":27,"msr":144,"rx":"AAECAw==","tx":"aGVsbG8=","thre_pending":true}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var s State
		if json.Unmarshal(raw, &s) != nil {
			return
		}
		p := newPort(t)
		if p.Restore(s) != nil {
			return
		}
		invariants(t, p)
		for reg := range uint64(SizeBytes) {
			p.in(reg)
			invariants(t, p)
		}
	})
}
