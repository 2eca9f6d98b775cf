package wire

import (
	"encoding/binary"
)

// The payload of LINE: the number of the line, its bytes.
const (
	lineNumberBytes  = 8
	linePayloadBytes = lineNumberBytes + lineBytes

	// LineFrameBytes is a LINE frame: what has to come before a guest that waits for a line goes on.
	LineFrameBytes = HeaderBytes + linePayloadBytes

	maxLineNumbers = maxPages * 64
)

// AppendRequestLine appends the payload of REQUEST_LINE: a line's guest-physical address divided by 64.
func AppendRequestLine(dst []byte, line uint64) []byte {
	return binary.LittleEndian.AppendUint64(dst, line)
}

// DecodeRequestLine returns the line of a REQUEST_LINE payload. Whether it exists is checked by whoever owns the memory.
func DecodeRequestLine(payload []byte) (line uint64, err error) {
	if len(payload) != lineNumberBytes {
		return 0, protocolErrorf("REQUEST_LINE of %d bytes", len(payload))
	}
	line = binary.LittleEndian.Uint64(payload)
	if line >= maxLineNumbers {
		return 0, protocolErrorf("REQUEST_LINE has line %#x", line)
	}
	return line, nil
}

// AppendLine appends the payload of LINE. content is the line's 64 bytes.
func AppendLine(dst []byte, line uint64, content []byte) []byte {
	if len(content) != lineBytes {
		panic("wire: a line of another size")
	}
	return append(binary.LittleEndian.AppendUint64(dst, line), content...)
}

// DecodeLine returns the line of a LINE payload and its bytes, which are borrowed from it. Whether it exists is checked by
// whoever owns the memory.
func DecodeLine(payload []byte) (line uint64, content []byte, err error) {
	if len(payload) != linePayloadBytes {
		return 0, nil, protocolErrorf("LINE of %d bytes", len(payload))
	}
	line, err = DecodeRequestLine(payload[:lineNumberBytes])
	if err != nil {
		return 0, nil, protocolErrorf("LINE has line %#x", line)
	}
	return line, payload[lineNumberBytes:], nil
}
