package link

import (
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// The Append functions write the bytes that generated code would: fields in the order of their numbers,
// zero values left out. Text that is not UTF-8 (a field that generated peers would refuse) has the offending
// bytes replaced by U+FFFD.

// AppendHello appends one complete Hello frame to a message.
func AppendHello(dst []byte, f *Hello) []byte {
	router, build := valid(f.Router), valid(f.Build)
	dst = open(dst, frameHello, sizeString(1, router)+sizeUint(2, uint64(f.Version))+sizeString(3, f.Token)+sizeString(4, build))
	dst = appendString(dst, 1, router)
	dst = appendUint(dst, 2, uint64(f.Version))
	dst = appendString(dst, 3, f.Token)
	return appendString(dst, 4, build)
}

// AppendWelcome appends one complete Welcome frame to a message.
func AppendWelcome(dst []byte, f *Welcome) []byte {
	node, instance, topic, build := valid(f.Node), valid(f.Instance), valid(f.Topic), valid(f.Build)
	dst = open(dst, frameWelcome, sizeString(1, node)+sizeString(2, instance)+sizeString(3, topic)+sizeTopicID(4, &f.TopicID)+
		sizeInt(5, int64(f.Partitions))+sizeUint(6, uint64(f.Version))+sizeString(7, build))
	dst = appendString(dst, 1, node)
	dst = appendString(dst, 2, instance)
	dst = appendString(dst, 3, topic)
	dst = appendTopicID(dst, 4, &f.TopicID)
	dst = appendInt(dst, 5, int64(f.Partitions))
	dst = appendUint(dst, 6, uint64(f.Version))
	return appendString(dst, 7, build)
}

// AppendAttach appends one complete Attach frame to a message.
func AppendAttach(dst []byte, f *Attach) []byte {
	start := sizeUint(1, uint64(f.Start.Kind)) + sizeInt(2, f.Start.Value)
	size := sizeUint(1, f.Stream) + sizeInt(2, int64(f.Partition)) + sizeBytes(3, f.Key) + sizeTopicID(5, &f.TopicID) +
		sizeInt(6, int64(f.Epoch)) + sizeInt(7, f.Credit)
	if start > 0 {
		size += protowire.SizeTag(4) + protowire.SizeBytes(start)
	}
	dst = open(dst, frameAttach, size)
	dst = appendUint(dst, 1, f.Stream)
	dst = appendInt(dst, 2, int64(f.Partition))
	dst = appendBytes(dst, 3, f.Key)
	if start > 0 {
		dst = appendLen(dst, 4, start)
		dst = appendUint(dst, 1, uint64(f.Start.Kind))
		dst = appendInt(dst, 2, f.Start.Value)
	}
	dst = appendTopicID(dst, 5, &f.TopicID)
	dst = appendInt(dst, 6, int64(f.Epoch))
	return appendInt(dst, 7, f.Credit)
}

// AppendAttached appends one complete Attached frame to a message.
func AppendAttached(dst []byte, f *Attached) []byte {
	live := uint64(0)
	if f.Live {
		live = 1
	}
	dst = open(dst, frameAttached, sizeUint(1, f.Stream)+sizeInt(2, f.Next)+sizeInt(3, f.Head)+sizeUint(4, uint64(f.Gap))+sizeUint(5, live))
	dst = appendUint(dst, 1, f.Stream)
	dst = appendInt(dst, 2, f.Next)
	dst = appendInt(dst, 3, f.Head)
	dst = appendUint(dst, 4, uint64(f.Gap))
	return appendUint(dst, 5, live)
}

// AppendCredit appends one complete Credit frame to a message.
func AppendCredit(dst []byte, f *Credit) []byte {
	dst = open(dst, frameCredit, sizeUint(1, f.Stream)+sizeInt(2, f.Bytes))
	dst = appendUint(dst, 1, f.Stream)
	return appendInt(dst, 2, f.Bytes)
}

// AppendDetach appends one complete Detach frame to a message.
func AppendDetach(dst []byte, f *Detach) []byte {
	dst = open(dst, frameDetach, sizeUint(1, f.Stream))
	return appendUint(dst, 1, f.Stream)
}

// Fits reports whether a link can carry the record to the streams it names: as the only frame of a message it
// is not larger than MaxMessage, and its lists are not longer than what the other end takes.
func (r *Record) Fits() bool {
	if len(r.Headers) > MaxHeaders || len(r.Streams) >= MaxStreams {
		return false
	}
	body := sizeRecord(r, sizeNumbers(r.Streams))
	frame := protowire.SizeTag(frameRecord) + protowire.SizeBytes(body)
	return protowire.SizeTag(batchFrames)+protowire.SizeBytes(frame) <= MaxMessage
}

func sizeRecord(f *Record, streams int) int {
	size := sizeInt(2, int64(f.Partition)) + sizeInt(3, f.Offset) + sizeInt(4, f.Timestamp) + sizeBytes(6, f.Key)
	if len(f.Streams) > 0 {
		size += protowire.SizeTag(1) + protowire.SizeBytes(streams)
	}
	for i := range f.Headers {
		size += protowire.SizeTag(5) + protowire.SizeBytes(sizeHeader(&f.Headers[i]))
	}
	if !f.Tombstone {
		size += protowire.SizeTag(7) + protowire.SizeBytes(len(f.Value))
	}
	return size
}

// AppendRecord appends one complete Record frame to a message. It allocates only what dst has no room for.
// The caller has seen to it that the record Fits.
func AppendRecord(dst []byte, f *Record) []byte {
	streams := sizeNumbers(f.Streams)
	size := sizeRecord(f, streams)
	dst = open(dst, frameRecord, size)
	dst = appendNumbers(dst, 1, streams, f.Streams)
	dst = appendInt(dst, 2, int64(f.Partition))
	dst = appendInt(dst, 3, f.Offset)
	dst = appendInt(dst, 4, f.Timestamp)
	for i := range f.Headers {
		h := &f.Headers[i]
		dst = appendLen(dst, 5, sizeHeader(h))
		dst = appendBytes(dst, 1, h.Key)
		if h.Value != nil {
			dst = appendLen(dst, 2, len(h.Value))
			dst = append(dst, h.Value...)
		}
	}
	dst = appendBytes(dst, 6, f.Key)
	if !f.Tombstone {
		dst = appendLen(dst, 7, len(f.Value))
		dst = append(dst, f.Value...)
	}
	return dst
}

// AppendCheckpoint appends one complete Checkpoint frame to a message.
func AppendCheckpoint(dst []byte, f *Checkpoint) []byte {
	except, only := sizeNumbers(f.Except), sizeNumbers(f.Only)
	size := sizeInt(1, int64(f.Partition)) + sizeInt(2, f.Next)
	if len(f.Except) > 0 {
		size += protowire.SizeTag(3) + protowire.SizeBytes(except)
	}
	if len(f.Only) > 0 {
		size += protowire.SizeTag(4) + protowire.SizeBytes(only)
	}
	dst = open(dst, frameCheckpoint, size)
	dst = appendInt(dst, 1, int64(f.Partition))
	dst = appendInt(dst, 2, f.Next)
	dst = appendNumbers(dst, 3, except, f.Except)
	return appendNumbers(dst, 4, only, f.Only)
}

// AppendGap appends one complete Gap frame to a message.
func AppendGap(dst []byte, f *Gap) []byte {
	dst = open(dst, frameGap, sizeUint(1, f.Stream)+sizeInt(2, f.From)+sizeInt(3, f.To)+sizeUint(4, uint64(f.Reason)))
	dst = appendUint(dst, 1, f.Stream)
	dst = appendInt(dst, 2, f.From)
	dst = appendInt(dst, 3, f.To)
	return appendUint(dst, 4, uint64(f.Reason))
}

// AppendClosed appends one complete Closed frame to a message.
func AppendClosed(dst []byte, f *Closed) []byte {
	detail := valid(f.Detail)
	dst = open(dst, frameClosed, sizeUint(1, f.Stream)+sizeUint(2, uint64(f.Reason))+sizeString(3, detail))
	dst = appendUint(dst, 1, f.Stream)
	dst = appendUint(dst, 2, uint64(f.Reason))
	return appendString(dst, 3, detail)
}

// AppendDraining appends one complete Draining frame to a message.
func AppendDraining(dst []byte) []byte { return open(dst, frameDraining, 0) }

// open writes everything of a frame that comes before its body's fields.
func open(dst []byte, frame protowire.Number, body int) []byte {
	dst = appendLen(dst, batchFrames, protowire.SizeTag(frame)+protowire.SizeBytes(body))
	return appendLen(dst, frame, body)
}

func appendLen(dst []byte, num protowire.Number, n int) []byte {
	dst = protowire.AppendTag(dst, num, protowire.BytesType)
	return protowire.AppendVarint(dst, uint64(n))
}

func sizeUint(num protowire.Number, v uint64) int {
	if v == 0 {
		return 0
	}
	return protowire.SizeTag(num) + protowire.SizeVarint(v)
}

func appendUint(dst []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	dst = protowire.AppendTag(dst, num, protowire.VarintType)
	return protowire.AppendVarint(dst, v)
}

// A negative int32 is sign-extended to 64 bits, as protobuf does.
func sizeInt(num protowire.Number, v int64) int { return sizeUint(num, uint64(v)) }

func appendInt(dst []byte, num protowire.Number, v int64) []byte {
	return appendUint(dst, num, uint64(v))
}

func sizeBytes(num protowire.Number, b []byte) int {
	if len(b) == 0 {
		return 0
	}
	return protowire.SizeTag(num) + protowire.SizeBytes(len(b))
}

func appendBytes(dst []byte, num protowire.Number, b []byte) []byte {
	if len(b) == 0 {
		return dst
	}
	dst = appendLen(dst, num, len(b))
	return append(dst, b...)
}

func sizeString(num protowire.Number, s string) int {
	if s == "" {
		return 0
	}
	return protowire.SizeTag(num) + protowire.SizeBytes(len(s))
}

func appendString(dst []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return dst
	}
	dst = appendLen(dst, num, len(s))
	return append(dst, s...)
}

func sizeTopicID(num protowire.Number, id *[16]byte) int {
	if *id == ([16]byte{}) {
		return 0
	}
	return protowire.SizeTag(num) + protowire.SizeBytes(len(id))
}

func appendTopicID(dst []byte, num protowire.Number, id *[16]byte) []byte {
	if *id == ([16]byte{}) {
		return dst
	}
	return appendBytes(dst, num, id[:])
}

// sizeNumbers is the size of the numbers packed, without tag and length.
func sizeNumbers(ns []uint64) int {
	size := 0
	for _, n := range ns {
		size += protowire.SizeVarint(n)
	}
	return size
}

func appendNumbers(dst []byte, num protowire.Number, size int, ns []uint64) []byte {
	if len(ns) == 0 {
		return dst
	}
	dst = appendLen(dst, num, size)
	for _, n := range ns {
		dst = protowire.AppendVarint(dst, n)
	}
	return dst
}

func sizeHeader(h *Header) int {
	size := sizeBytes(1, h.Key)
	if h.Value != nil {
		size += protowire.SizeTag(2) + protowire.SizeBytes(len(h.Value))
	}
	return size
}

func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
