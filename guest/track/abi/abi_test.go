package abi

import (
	"bytes"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// numbers are ours by the header's names.
var numbers = map[string]uint64{
	"VENDOR_ID": VendorID, "DEVICE_ID": DeviceID, "BAR_BYTES": BARBytes,
	"ID": RegID, "VERSION": RegVersion, "FEATURES": RegFeatures, "MAX_CONTEXTS": RegMaxContexts,
	"MAX_RANGES": RegMaxRanges, "CONTROL": RegControl, "STATUS": RegStatus, "ERROR": RegError,
	"CMD_RING": RegCmdRing, "CPL_RING": RegCplRing, "CMD_ENTRIES": RegCmdEntries, "CPL_ENTRIES": RegCplEntries,
	"DOORBELL": RegDoorbell, "CMD_TAKEN": RegCmdTaken, "CPL_TAKEN": RegCplTaken, "CPL_PUT": RegCplPut,
	"MAGIC": Magic, "ABI_VERSION": Version,
	"FEATURE_DIFF": FeatureDiff, "FEATURE_STORES": FeatureStores, "FEATURE_HOMED": FeatureHomed,
	"CONTROL_ENABLE": ControlEnable, "CONTROL_INTERRUPT": ControlInterrupt,
	"STATUS_ENABLED": StatusEnabled, "STATUS_ERROR": StatusError,
	"RING_BAD_ADDRESS": RingBadAddress, "RING_BAD_ENTRIES": RingBadEntries, "RING_BAD_INDEX": RingBadIndex,
	"OP_CREATE": uint64(OpCreate), "OP_DESTROY": uint64(OpDestroy), "OP_REGISTER": uint64(OpRegister),
	"OP_UNREGISTER": uint64(OpUnregister), "OP_START": uint64(OpStart), "OP_STOP": uint64(OpStop), "OP_HARVEST": uint64(OpHarvest),
	"MODE_DIFF": ModeDiff, "MODE_STORES": ModeStores, "MODE_HOMED": ModeHomed,
	"CREATE_MODE_MASK": CreateModeMask, "CREATE_COUNT_BYTES": CreateCountBytes, "HARVEST_NO_SNOOP": HarvestNoSnoop,
	"RECORD_INEXACT": RecordInexact, "RECORD_COUNTED": RecordCounted, "COMPLETION_MORE": CompletionMore,
	"OK": OK, "ERR_OPCODE": ErrOpcode, "ERR_FLAGS": ErrFlags, "ERR_CONTEXT": ErrContext, "ERR_STATE": ErrState,
	"ERR_ADDRESS": ErrAddress, "ERR_COUNT": ErrCount, "ERR_NOT_REGISTERED": ErrNotRegistered,
	"ERR_NO_SPACE": ErrNoSpace, "ERR_HOST": ErrHost,
}

var (
	define = regexp.MustCompile(`(?m)^#define FLFPGA_(\w+)\s+(\(1u << \d+\)|0x[0-9a-f]+u?|\d+)`)
	member = regexp.MustCompile(`(?m)^\tuint(32|64)_t (\w+)(?:\[(\d+)\])?;`)
)

func header(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../include/fineline_fpga.h")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestNumbersAreTheHeaders(t *testing.T) {
	seen := 0
	for _, m := range define.FindAllStringSubmatch(header(t), -1) {
		want, err := value(m[2])
		if err != nil {
			t.Fatal(err)
		}
		if m[1] == "CLASS" {
			continue // the function is found by its identity
		}
		seen++
		if got, ok := numbers[m[1]]; !ok || got != want {
			t.Errorf("%s is %#x in the header, %#x here (known: %v)", m[1], want, got, ok)
		}
	}
	if seen != len(numbers) {
		t.Errorf("the header has %d numbers, we have %d", seen, len(numbers))
	}
}

func value(s string) (uint64, error) {
	if shift, ok := strings.CutPrefix(s, "(1u << "); ok {
		n, err := strconv.ParseUint(strings.TrimSuffix(shift, ")"), 10, 6)
		return 1 << n, err
	}
	return strconv.ParseUint(strings.TrimSuffix(s, "u"), 0, 64)
}

// TestEntriesAreTheHeaders encodes entries whose fields hold their own offsets in the header.
func TestEntriesAreTheHeaders(t *testing.T) {
	for name, tt := range map[string]struct {
		bytes int
		put   func(field map[string]uint64, b []byte)
		again func(b []byte)
	}{
		"command": {CommandBytes, func(f map[string]uint64, b []byte) {
			Command{Op(f["opcode"]), uint32(f["flags"]), f["cookie"], uint32(f["context"]), uint32(f["count"]), f["address"]}.Put(b)
		}, func(b []byte) { GetCommand(b).Put(b) }},
		"range": {RangeBytes, func(f map[string]uint64, b []byte) {
			Range{f["address"], f["bytes"]}.Put(b)
		}, func(b []byte) { GetRange(b).Put(b) }},
		"record": {RecordBytes, func(f map[string]uint64, b []byte) {
			Record{f["page"], f["lines"], uint32(f["changed_bytes"]), uint32(f["flags"])}.Put(b)
		}, func(b []byte) { GetRecord(b).Put(b) }},
		"completion": {CompletionBytes, func(f map[string]uint64, b []byte) {
			Completion{f["cookie"], f["result"], uint32(f["status"]), uint32(f["flags"]), uint32(f["context"]), uint32(f["sequence"])}.Put(b)
		}, func(b []byte) { GetCompletion(b).Put(b) }},
	} {
		_, rest, ok := strings.Cut(header(t), "struct flfpga_"+name+" {\n")
		if !ok {
			t.Fatalf("the header has no struct %s", name)
		}
		body, _, _ := strings.Cut(rest, "};")
		want := make([]byte, tt.bytes)
		fields, at := map[string]uint64{}, 0
		for _, m := range member.FindAllStringSubmatch(body, -1) {
			size, count := 4, 1
			if m[1] == "64" {
				size = 8
			}
			if m[3] != "" {
				count, _ = strconv.Atoi(m[3])
			}
			if m[2] != "reserved" {
				fields[m[2]] = uint64(at + 1)
				want[at] = byte(at + 1)
			}
			at += size * count
		}
		if at != tt.bytes {
			t.Errorf("%s: %d bytes in the header, %d here", name, at, tt.bytes)
			continue
		}
		got := make([]byte, tt.bytes)
		tt.put(fields, got)
		if !bytes.Equal(got, want) {
			t.Errorf("%s: encoded %x, want %x", name, got, want)
		}
		tt.again(got)
		if !bytes.Equal(got, want) {
			t.Errorf("%s: decoded and encoded %x, want %x", name, got, want)
		}
	}
	if SequenceOffset != CompletionBytes-4 {
		t.Error("the sequence is not a completion's last field")
	}
}
