package dirtycheck

import (
	"encoding/binary"
	"fmt"

	"github.com/fineline-vmm/fineline/memory"
)

// Kind says what happened to a line, as far as its bytes tell.
type Kind int

// The kinds of mismatch.
const (
	Corrupt Kind = iota // bytes that no step of this vCPU put there (or fewer than 8 bytes a line are written)
	Lost                // all zeros, as if never written
	Stale               // exactly as FoundStep left it, which is not the last step
	Ahead               // exactly as FoundStep leaves it, which by the vCPU's record has not begun
	Torn                // words of FoundStep and of others
	Table               // the line's entry in the table of last steps is FoundStep
	Record              // the vCPU's record: next (FoundStep) fits not with done (Step)
)

// String gives a word for the kind.
func (k Kind) String() string {
	return [...]string{"corrupt", "lost", "stale", "ahead", "torn", "table", "record"}[k]
}

// MarshalText makes the kind a word in JSON.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Mismatch is one thing in guest memory that is not what the sequence says.
type Mismatch struct {
	Kind      Kind            `json:"kind"`
	Address   memory.GPA      `json:"address"` // of the line or table entry
	VCPU      int             `json:"vcpu"`
	Line      uint64          `json:"line"`       // index among the vCPU's lines
	Step      uint64          `json:"step"`       // last step that wrote it; 0 = none
	FoundStep uint64          `json:"found_step"` // see Kind
	Offset    int             `json:"offset"`     // of the first wrong byte in the line
	Expected  [lineBytes]byte `json:"-"`
	Found     [lineBytes]byte `json:"-"`
}

// String is one line that names the mismatch.
func (m Mismatch) String() string {
	head := fmt.Sprintf("%v: vcpu %d line %d at %#x", m.Kind, m.VCPU, m.Line, uint64(m.Address))
	switch m.Kind {
	case Record:
		return fmt.Sprintf("record: vcpu %d: next %d does not follow done %d", m.VCPU, m.FoundStep, m.Step)
	case Table:
		return fmt.Sprintf("%s: entry is %d, last step is %d", head, m.FoundStep, m.Step)
	case Stale, Ahead, Torn:
		head = fmt.Sprintf("%s: holds step %d", head, m.FoundStep)
	case Corrupt, Lost:
	}
	at := m.Offset &^ 7
	return fmt.Sprintf("%s: last step is %d: offset %d: expected %x, found %x", head, m.Step, m.Offset,
		m.Expected[at:at+8], m.Found[at:at+8])
}

// diagnose finds out which step's words stand in the line.
func (w *writer) diagnose(m Mismatch, bytes int) Mismatch {
	if m.Found == [lineBytes]byte{} {
		m.Kind = Lost
		return m
	}
	if bytes < 8 {
		return m
	}
	for i := range bytes / 8 {
		value := binary.LittleEndian.Uint64(m.Found[8*i:]) - uint64(i)*wordGamma
		step := w.step(value)
		if step == m.Step || step == 0 || w.line(value, step) != m.Line {
			continue
		}
		whole := w.content(step, bytes) == m.Found
		switch {
		case whole && step <= w.Next:
			m.Kind, m.FoundStep = Stale, step
			return m
		case whole:
			m.Kind, m.FoundStep = Ahead, step
			return m
		case step <= w.Next:
			m.Kind, m.FoundStep = Torn, step
			return m
		}
	}
	return m
}
