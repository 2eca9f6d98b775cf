package vector

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var fields = cmp.AllowUnexported(instruction{}, head{}, operand{}, row{})

// What is spelled is read back, and cut short anywhere it is known to be incomplete.
func TestDecodeReadsBack(t *testing.T) {
	everySample(randomness(t), 200, nil, func(s sample) {
		if s.row.kind != lane {
			s.imm = 0
		}
		want := s.instruction
		want.address32, want.segment = want.memory.Address32, want.memory.segment
		got, err := decode(s.code)
		// The high bits of register numbers are in the numbers already.
		got.head.reg, got.head.index, got.head.base = 0, 0, 0
		if got.memory.Index == noIndex {
			got.memory.Index = -1
		}
		if diff := cmp.Diff(want, got, fields); err != nil || diff != "" {
			t.Fatalf("% x: %v (-want +got):\n%s", s.code, err, diff)
		}
		for n := range s.code {
			if in, err := decode(s.code[:n]); !errors.Is(err, ErrTruncated) || in.row != nil {
				t.Fatalf("% x without its end: %v, want %v", s.code[:n], err, ErrTruncated)
			}
		}
	})
}

// listing is objdump's lines for the code, which is one instruction after another.
func listing(t *testing.T, code []byte) []string {
	t.Helper()
	objdump, err := exec.LookPath("objdump")
	if err != nil {
		t.Skip("needs binutils' objdump, the oracle")
	}
	file := filepath.Join(t.TempDir(), "code")
	if err := os.WriteFile(file, code, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(objdump, "-D", "-w", "-b", "binary", "-m", "i386:x86-64", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(out), "<.data>:\n")
	return strings.Split(strings.TrimSpace(body), "\n")
}

var registerNames = [16]string{
	"ax", "cx", "dx", "bx", "sp", "bp", "si", "di", "8", "9", "10", "11", "12", "13", "14", "15",
}

// text is the memory operand as objdump writes it.
func (s *sample) text(at int) string {
	o := &s.memory
	name := func(n int) string {
		r := registerNames[n]
		switch {
		case n >= 8 && o.Address32:
			return "%r" + r + "d"
		case n < 8 && o.Address32:
			return "%e" + r
		}
		return "%r" + r
	}
	var b strings.Builder
	if o.segment != NoSegment {
		b.WriteString([]string{FS: "%fs:", GS: "%gs:"}[o.segment])
	}
	disp := o.Disp
	if o.Disp8 {
		disp *= int64(s.compression())
	}
	switch {
	case o.Base < 0 && o.Index < 0 && !o.Relative && o.Address32:
		fmt.Fprintf(&b, "%#x(,%%eiz,1)", uint32(disp)) // objdump's name for no index
	case o.Base < 0 && o.Index < 0 && !o.Relative:
		fmt.Fprintf(&b, "%#x", uint64(disp))
	case disp < 0:
		fmt.Fprintf(&b, "-%#x", -disp)
	case disp != 0 || o.Disp8 || o.Base < 0:
		fmt.Fprintf(&b, "%#x", disp)
	}
	switch {
	case o.Relative && o.Address32:
		b.WriteString("(%eip)")
	case o.Relative:
		b.WriteString("(%rip)")
	case o.Base < 0 && o.Index < 0:
	default:
		b.WriteByte('(')
		if o.Base >= 0 {
			b.WriteString(name(o.Base))
		}
		if o.Index >= 0 {
			fmt.Fprintf(&b, ",%s,%d", name(o.Index), o.Scale)
		}
		b.WriteByte(')')
	}
	return b.String()
}

// objdump agrees about length, memory operand, vector register, opmask, and direction.
func TestDecodeAgreesWithObjdump(t *testing.T) {
	var code []byte
	var all []sample
	everySample(randomness(t), 60, nil, func(s sample) {
		all = append(all, s)
		code = append(code, s.code...)
	})
	lines := listing(t, code)
	if len(lines) != len(all) {
		t.Errorf("objdump sees %d instructions, not %d", len(lines), len(all))
	}
	extra := regexp.MustCompile(`\s+[#].*$|(\{z\})`)
	at, wrong := 0, 0
	for i, s := range all[:min(len(all), len(lines))] {
		fields := strings.SplitN(lines[i], "\t", 3)
		var length int
		if len(fields) == 3 {
			length = len(strings.Fields(fields[1]))
		}
		text := extra.ReplaceAllString(fields[len(fields)-1], "$1")
		register := fmt.Sprintf("%%%cmm%d", "xyz"[s.vectorLength], s.reg)
		if s.row.kind == scalar || s.row.kind == lowHalf || s.row.kind == highHalf {
			register = fmt.Sprintf("%%xmm%d", s.reg)
		}
		mask := ""
		if s.mask != 0 {
			mask = fmt.Sprintf("{%%k%d}", s.mask)
		}
		if s.zeroing {
			mask += "{z}"
		}
		memory := s.text(at)
		at += len(s.code)
		want := memory + "," + register + mask
		if (s.row.kind == lowHalf || s.row.kind == highHalf) && s.enc != legacy && !s.store {
			want = fmt.Sprintf("%s,%%xmm%d,%s", memory, s.vvvv, register)
		}
		if s.store {
			want = register + "," + memory + mask
		}
		if s.row.kind == lane {
			want = fmt.Sprintf("$%#x,%s", s.imm, want)
		}
		if length != len(s.code) || !strings.HasSuffix(text, " "+want) {
			t.Errorf("% x is %q, length %d; want %s, %d", s.code, text, length, want, len(s.code))
			if wrong++; wrong > 20 {
				return
			}
		}
	}
	t.Logf("%d instructions", len(all))
}

func TestDecodeRefuses(t *testing.T) {
	for what, code := range map[string][]byte{
		"a register operand":                {0xc5, 0xfe, 0x7f, 0xc0},
		"arithmetic":                        {0xc5, 0xfd, 0xfc, 0x00},
		"vvvv in use":                       {0xc5, 0xbe, 0x7f, 0x00},
		"a store that zeroes":               {0x62, 0xf1, 0xfe, 0xc9, 0x7f, 0x00},
		"zeroing without a mask":            {0x62, 0xf1, 0xfe, 0xc8, 0x6f, 0x00},
		"a mask where there is none":        {0x62, 0xf1, 0x7d, 0x49, 0xe7, 0x00},
		"EVEX.b":                            {0x62, 0xf1, 0xfe, 0x58, 0x7f, 0x00},
		"a vector length of the future":     {0x62, 0xf1, 0xfe, 0x68, 0x7f, 0x00},
		"W of another instruction":          {0x62, 0xf1, 0xfc, 0x48, 0x11, 0x00},
		"REX before VEX":                    {0x48, 0xc5, 0xfe, 0x7f, 0x00},
		"66 before VEX":                     {0x66, 0xc5, 0xfe, 0x7f, 0x00},
		"an MMX register":                   {0x0f, 0x7f, 0x00},
		"the register extension of APX":     {0x62, 0xf9, 0xfe, 0x48, 0x7f, 0x00},
		"an instruction without operands":   {0xc5, 0xf8, 0x77},
		"an instruction KVM's emulator has": {0x88, 0x00},
	} {
		if in, err := decode(code); !errors.Is(err, ErrUnknown) || errors.Is(err, ErrTruncated) || in.row != nil {
			t.Errorf("%s, % x: %v, want %v", what, code, err, ErrUnknown)
		}
	}
	long := append(bytes.Repeat([]byte{0x3e}, 12), 0xc5, 0xfe, 0x7f, 0x00)
	if _, err := decode(long); !errors.Is(err, ErrTruncated) {
		t.Errorf("16 bytes: %v, want %v", err, ErrTruncated)
	}
}

func FuzzDecode(f *testing.F) {
	r := randomness(f)
	everySample(r, 1, nil, func(s sample) { f.Add(s.code) })
	f.Add([]byte{0x62, 0xf2, 0x7d, 0x49, 0x90, 0x04, 0x88}) // vpgatherdd
	f.Fuzz(func(t *testing.T, code []byte) {
		in, err := decode(code)
		if in.length > MaxBytes || in.length > len(code) {
			t.Fatalf("length %d of %d bytes", in.length, len(code))
		}
		if (err == nil) != (in.row != nil) || err != nil && !errors.Is(err, ErrUnknown) {
			t.Fatalf("row %v, error %v", in.row, err)
		}
		cpu := newFakeCPU()
		switch err := run(code, cpu, nil); {
		case err == nil && cpu.regs.RIP != fakeRIP+uint64(in.length):
			t.Fatalf("RIP %#x after %d bytes", cpu.regs.RIP, in.length)
		case err != nil && !errors.As(err, new(*UnknownError)):
			t.Fatal(err)
		}
	})
}
