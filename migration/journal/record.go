package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// Side says which end of a migration wrote a record.
type Side string

// The sides.
const (
	Source      Side = "source"
	Destination Side = "destination"
)

// Phase is a step of the ownership law; package migration says what each means.
type Phase string

// The phases of the source, then those of the destination.
const (
	Preflight  Phase = "preflight"
	Precopy    Phase = "precopy"
	Paused     Phase = "paused"
	StateSent  Phase = "state-sent"
	CommitSent Phase = "commit-sent"
	Serving    Phase = "serving" // post-copy: the guest is given away, and still needs memory from here
	Standby    Phase = "standby" // the guest is given away, and could go on here from a checkpoint
	Resumed    Phase = "resumed-from-checkpoint"
	Done       Phase = "done"
	Cancelled  Phase = "cancelled"
	Failed     Phase = "failed"

	Accepted  Phase = "accepted"
	Receiving Phase = "receiving"
	Ready     Phase = "ready"
	Owner     Phase = "owner"
	Discarded Phase = "discarded"
	Ended     Phase = "ended" // the owner's guest has ended or moves on: no checkpoint of it may run
)

// Record is one line of the journal.
type Record struct {
	MachineID  string    `json:"machine_id"`
	Generation uint64    `json:"generation"` // of the hand-over; grows by one with each attempt
	Side       Side      `json:"side"`
	Phase      Phase     `json:"phase"`
	Time       time.Time `json:"time"`           // for humans; nothing is decided by it
	Note       string    `json:"note,omitempty"` // the reason, where there is one
}

// maxLineBytes bounds one record; a longer line is not one of ours.
const maxLineBytes = 64 << 10

// ErrCorrupt: the file is no journal, or one with a record that does not match its checksum. (A torn
// last record is what a crash leaves, and no error.)
var ErrCorrupt = errors.New("the journal is corrupt")

// castagnoli is a call, since the first one anywhere takes 2 ms: not in the way of a guest's start.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// line is the form on disk. The checksum is taken over the exact bytes of Record, not over a
// re-encoding, so that readers of another build agree.
type line struct {
	CRC32C string          `json:"crc32c"`
	Record json.RawMessage `json:"record"`
}

// opening is how every line begins; see line.
const opening = `{"crc32c":"`

func checksum(record []byte) string {
	return fmt.Sprintf("%08x", crc32.Checksum(record, castagnoli()))
}

func encode(r Record) ([]byte, error) {
	record, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("journal record: %w", err)
	}
	out, err := json.Marshal(line{CRC32C: checksum(record), Record: record})
	if err != nil {
		return nil, fmt.Errorf("journal record: %w", err)
	}
	if len(out) >= maxLineBytes {
		return nil, fmt.Errorf("journal record of %d bytes: the limit is %d", len(out), maxLineBytes)
	}
	return append(out, '\n'), nil
}

func decodeLine(text []byte) (Record, bool) {
	var l line
	var r Record
	if len(text) > maxLineBytes || json.Unmarshal(text, &l) != nil || checksum(l.Record) != l.CRC32C {
		return r, false
	}
	if json.Unmarshal(l.Record, &r) != nil {
		return Record{}, false
	}
	return r, true
}

// Decode reads a whole journal. validBytes is how much of data the records fill: what lies behind it
// is a torn tail, one bad line at the end. Anything else is ErrCorrupt.
func Decode(data []byte) (records []Record, validBytes int, err error) {
	for rest := data; len(rest) > 0; rest = data[validBytes:] {
		text, next, whole := bytes.Cut(rest, []byte{'\n'})
		r, ok := decodeLine(text)
		if !whole || !ok {
			if len(next) > 0 || !torn(text, len(records) > 0) {
				return nil, 0, fmt.Errorf("%w: bytes %d and on are no record", ErrCorrupt, validBytes)
			}
			break
		}
		records = append(records, r)
		validBytes = len(data) - len(next)
	}
	return records, validBytes, nil
}

// torn reports whether a last line may be what is left of a record. Behind other records it may have any
// content, since a crash can leave zeros; a first one has at least the beginning of ours: the file may be
// no journal at all, and what is torn gets truncated.
func torn(text []byte, behindRecords bool) bool {
	n := min(len(text), len(opening))
	return len(text) <= maxLineBytes && (behindRecords || string(text[:n]) == opening[:n])
}
