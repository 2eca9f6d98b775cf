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
	Done       Phase = "done"
	Cancelled  Phase = "cancelled"
	Failed     Phase = "failed"

	Accepted  Phase = "accepted"
	Receiving Phase = "receiving"
	Ready     Phase = "ready"
	Owner     Phase = "owner"
	Discarded Phase = "discarded"
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

// ErrCorrupt: a record in the middle of a journal does not match its checksum. (A torn last record is
// what a crash leaves, and no error.)
var ErrCorrupt = errors.New("the journal is corrupt")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// line is the form on disk. The checksum is taken over the exact bytes of Record, not over a
// re-encoding, so that readers of another build agree.
type line struct {
	CRC32C string          `json:"crc32c"`
	Record json.RawMessage `json:"record"`
}

func checksum(record []byte) string {
	return fmt.Sprintf("%08x", crc32.Checksum(record, castagnoli))
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
// is a torn tail. A bad line with a good one behind it is ErrCorrupt.
func Decode(data []byte) (records []Record, validBytes int, err error) {
	torn := false
	for start := 0; start < len(data); {
		length := bytes.IndexByte(data[start:], '\n')
		if length < 0 {
			break
		}
		r, ok := decodeLine(data[start : start+length])
		start += length + 1
		switch {
		case !ok:
			torn = true
		case torn:
			return nil, 0, fmt.Errorf("%w: a bad record lies before byte %d", ErrCorrupt, start)
		default:
			records = append(records, r)
			validBytes = start
		}
	}
	return records, validBytes, nil
}
