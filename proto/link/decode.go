package link

import "google.golang.org/protobuf/encoding/protowire"

// NodeHandler receives the frames that a router sends. What pointers and slices lead to is valid during the
// call only. An error stops the decoding and is returned by it.
type NodeHandler interface {
	Hello(*Hello) error
	Attach(*Attach) error
	Credit(Credit) error
	Detach(Detach) error
}

// RouterHandler receives the frames that a node sends. What pointers and slices lead to is valid during the
// call only. An error stops the decoding and is returned by it.
type RouterHandler interface {
	Welcome(*Welcome) error
	Attached(Attached) error
	Record(*Record) error
	Checkpoint(*Checkpoint) error
	Gap(Gap) error
	Closed(Closed) error
	Draining() error
}

// DecodeToNode calls h for each frame of a message, in order. A malformed or unknown frame, one of the other
// direction, or an error of h stops it; frames before that were handled. An empty message is legal.
// Errors about the message wrap ErrMalformed.
func DecodeToNode(msg []byte, h NodeHandler) error {
	if len(msg) > MaxMessage {
		return malformed("%d bytes, more than %d", len(msg), MaxMessage)
	}
	w := fields{rest: msg}
	for {
		frame, body, ok, err := nextFrame(&w)
		if err != nil || !ok {
			return err
		}
		switch frame {
		case frameHello:
			err = decodeHello(body, h)
		case frameAttach:
			err = decodeAttach(body, h)
		case frameCredit:
			err = decodeCredit(body, h)
		case frameDetach:
			err = decodeDetach(body, h)
		default:
			err = malformed("frame %d is not for a node", frame)
		}
		if err != nil {
			return err
		}
	}
}

// DecodeToRouter is RouterDecoder.Decode with a decoder of its own; it allocates.
func DecodeToRouter(msg []byte, h RouterHandler) error { return NewRouterDecoder().Decode(msg, h) }

// RouterDecoder decodes what a node sends. It keeps its frames and their lists between calls, so that in
// steady state a record costs no allocation. One goroutine at a time may use it.
type RouterDecoder struct {
	record     Record
	checkpoint Checkpoint
}

// What a decoder keeps for the next call, at most: 2 MiB for each list of streams, 48 KiB for headers.
const (
	keepStreams = 1 << 18
	keepHeaders = 1 << 10
)

// forget lets go of the message, which the last frames alias, and of lists that were unusually long.
func (d *RouterDecoder) forget() {
	h := d.record.Headers[:cap(d.record.Headers)]
	clear(h)
	if len(h) > keepHeaders {
		h = nil
	}
	d.record = Record{Streams: keep(d.record.Streams), Headers: h[:0]}
	d.checkpoint = Checkpoint{Except: keep(d.checkpoint.Except), Only: keep(d.checkpoint.Only)}
}

func keep(s []uint64) []uint64 {
	if cap(s) > keepStreams {
		return nil
	}
	return s[:0]
}

// NewRouterDecoder returns a decoder for one link.
func NewRouterDecoder() *RouterDecoder { return &RouterDecoder{} }

// Decode calls h for each frame of a message, in order. A malformed or unknown frame, one of the other
// direction, or an error of h stops it; frames before that were handled. An empty message is legal.
// Errors about the message wrap ErrMalformed.
func (d *RouterDecoder) Decode(msg []byte, h RouterHandler) error {
	if len(msg) > MaxMessage {
		return malformed("%d bytes, more than %d", len(msg), MaxMessage)
	}
	defer d.forget()
	w := fields{rest: msg}
	for {
		frame, body, ok, err := nextFrame(&w)
		if err != nil || !ok {
			return err
		}
		switch frame {
		case frameRecord:
			err = d.decodeRecord(body, h)
		case frameCheckpoint:
			err = d.decodeCheckpoint(body, h)
		case frameWelcome:
			err = decodeWelcome(body, h)
		case frameAttached:
			err = decodeAttached(body, h)
		case frameGap:
			err = decodeGap(body, h)
		case frameClosed:
			err = decodeClosed(body, h)
		case frameDraining:
			err = decodeDraining(body, h)
		default:
			err = malformed("frame %d is not for a router", frame)
		}
		if err != nil {
			return err
		}
	}
}

// nextFrame reads the next frame of a batch: its number and its body.
func nextFrame(w *fields) (frame protowire.Number, body []byte, ok bool, err error) {
	var f field
	for {
		more, err := w.next(&f)
		if err != nil || !more {
			return 0, nil, false, err
		}
		if f.is(batchFrames, protowire.BytesType) {
			break
		}
	}
	// A frame has exactly one body that this version knows. Without one it is a frame of a newer version:
	// to skip it could lose a record, so it is refused.
	inner := fields{rest: f.b}
	for {
		more, err := inner.next(&f)
		if err != nil {
			return 0, nil, false, err
		}
		if !more {
			break
		}
		if f.typ != protowire.BytesType || f.num > frameDraining {
			continue
		}
		if frame != 0 {
			return 0, nil, false, malformed("a frame with two bodies, %d and %d", frame, f.num)
		}
		frame, body = f.num, f.b
	}
	if frame == 0 {
		return 0, nil, false, malformed("unknown frame")
	}
	return frame, body, true, nil
}

func decodeHello(body []byte, h NodeHandler) error {
	var out Hello
	w, f := fields{rest: body}, field{}
	for {
		more, err := w.next(&f)
		switch {
		case err != nil:
		case !more:
			return h.Hello(&out)
		case f.is(1, protowire.BytesType):
			out.Router, err = f.text()
		case f.is(2, protowire.VarintType):
			out.Version = uint32(f.n)
		case f.is(3, protowire.BytesType):
			out.Token = string(f.b)
		case f.is(4, protowire.BytesType):
			out.Build, err = f.text()
		}
		if err != nil {
			return err
		}
	}
}

func decodeWelcome(body []byte, h RouterHandler) error {
	var out Welcome
	w, f := fields{rest: body}, field{}
	for {
		more, err := w.next(&f)
		switch {
		case err != nil:
		case !more:
			if out.Partitions < 0 {
				return malformed("welcome: %d partitions", out.Partitions)
			}
			return h.Welcome(&out)
		case f.is(1, protowire.BytesType):
			out.Node, err = f.text()
		case f.is(2, protowire.BytesType):
			out.Instance, err = f.text()
		case f.is(3, protowire.BytesType):
			out.Topic, err = f.text()
		case f.is(4, protowire.BytesType):
			err = f.topicID(&out.TopicID)
		case f.is(5, protowire.VarintType):
			out.Partitions = int32(f.n)
		case f.is(6, protowire.VarintType):
			out.Version = uint32(f.n)
		case f.is(7, protowire.BytesType):
			out.Build, err = f.text()
		}
		if err != nil {
			return err
		}
	}
}

func decodeAttach(body []byte, h NodeHandler) error {
	out := Attach{Key: []byte{}}
	w, f := fields{rest: body}, field{}
	for {
		more, err := w.next(&f)
		switch {
		case err != nil:
		case !more:
			if out.Stream == 0 || out.Partition < 0 {
				return malformed("attach: stream %d, partition %d", out.Stream, out.Partition)
			}
			return h.Attach(&out)
		case f.is(1, protowire.VarintType):
			out.Stream = f.n
		case f.is(2, protowire.VarintType):
			out.Partition = int32(f.n)
		case f.is(3, protowire.BytesType):
			out.Key = present(f.b)
		case f.is(4, protowire.BytesType):
			err = decodeStart(f.b, &out.Start)
		case f.is(5, protowire.BytesType):
			err = f.topicID(&out.TopicID)
		case f.is(6, protowire.VarintType):
			out.Epoch = int32(f.n)
		case f.is(7, protowire.VarintType):
			out.Credit = int64(f.n)
		}
		if err != nil {
			return err
		}
	}
}

func decodeStart(body []byte, out *Start) error {
	w, f := fields{rest: body}, field{}
	for {
		more, err := w.next(&f)
		if err != nil || !more {
			return err
		}
		switch {
		case f.is(1, protowire.VarintType):
			out.Kind = StartKind(f.enum())
		case f.is(2, protowire.VarintType):
			out.Value = int64(f.n)
		}
	}
}

func decodeAttached(body []byte, h RouterHandler) error {
	var out Attached
	w, f := fields{rest: body}, field{}
	for {
		more, err := w.next(&f)
		if err != nil {
			return err
		}
		switch {
		case !more:
			if out.Stream == 0 || out.Next < 0 {
				return malformed("attached: stream %d, next %d", out.Stream, out.Next)
			}
			return h.Attached(out)
		case f.is(1, protowire.VarintType):
			out.Stream = f.n
		case f.is(2, protowire.VarintType):
			out.Next = int64(f.n)
		case f.is(3, protowire.VarintType):
			out.Head = int64(f.n)
		case f.is(4, protowire.VarintType):
			out.Gap = GapReason(f.enum())
		case f.is(5, protowire.VarintType):
			out.Live = f.n != 0
		}
	}
}

func decodeCredit(body []byte, h NodeHandler) error {
	var out Credit
	w, f := fields{rest: body}, field{}
	for {
		more, err := w.next(&f)
		if err != nil {
			return err
		}
		switch {
		case !more:
			if out.Stream == 0 {
				return malformed("credit: stream 0")
			}
			return h.Credit(out)
		case f.is(1, protowire.VarintType):
			out.Stream = f.n
		case f.is(2, protowire.VarintType):
			out.Bytes = int64(f.n)
		}
	}
}

func decodeDetach(body []byte, h NodeHandler) error {
	var out Detach
	w, f := fields{rest: body}, field{}
	for {
		more, err := w.next(&f)
		if err != nil {
			return err
		}
		switch {
		case !more:
			if out.Stream == 0 {
				return malformed("detach: stream 0")
			}
			return h.Detach(out)
		case f.is(1, protowire.VarintType):
			out.Stream = f.n
		}
	}
}

func (d *RouterDecoder) decodeRecord(body []byte, h RouterHandler) error {
	out := &d.record
	*out = Record{Streams: out.Streams[:0], Headers: out.Headers[:0], Key: []byte{}, Tombstone: true}
	w, f := fields{rest: body}, field{}
	for {
		more, err := w.next(&f)
		switch {
		case err != nil:
		case !more:
			if out.Partition < 0 || out.Offset < 0 {
				return malformed("record: partition %d, offset %d", out.Partition, out.Offset)
			}
			return h.Record(out)
		case f.isNumbers(1):
			out.Streams, err = f.numbers(out.Streams)
		case f.is(2, protowire.VarintType):
			out.Partition = int32(f.n)
		case f.is(3, protowire.VarintType):
			out.Offset = int64(f.n)
		case f.is(4, protowire.VarintType):
			out.Timestamp = int64(f.n)
		case f.is(5, protowire.BytesType):
			if len(out.Headers) == MaxHeaders {
				return malformed("record: more than %d headers", MaxHeaders)
			}
			out.Headers = append(out.Headers, Header{Key: []byte{}})
			err = decodeHeader(f.b, &out.Headers[len(out.Headers)-1])
		case f.is(6, protowire.BytesType):
			out.Key = present(f.b)
		case f.is(7, protowire.BytesType):
			out.Value, out.Tombstone = present(f.b), false
		}
		if err != nil {
			return err
		}
	}
}

func decodeHeader(body []byte, out *Header) error {
	w, f := fields{rest: body}, field{}
	for {
		more, err := w.next(&f)
		if err != nil || !more {
			return err
		}
		switch {
		case f.is(1, protowire.BytesType):
			out.Key = present(f.b)
		case f.is(2, protowire.BytesType):
			out.Value = present(f.b)
		}
	}
}

func (d *RouterDecoder) decodeCheckpoint(body []byte, h RouterHandler) error {
	out := &d.checkpoint
	*out = Checkpoint{Except: out.Except[:0], Only: out.Only[:0]}
	w, f := fields{rest: body}, field{}
	for {
		more, err := w.next(&f)
		switch {
		case err != nil:
		case !more:
			if out.Partition < 0 || out.Next < 0 {
				return malformed("checkpoint: partition %d, next %d", out.Partition, out.Next)
			}
			return h.Checkpoint(out)
		case f.is(1, protowire.VarintType):
			out.Partition = int32(f.n)
		case f.is(2, protowire.VarintType):
			out.Next = int64(f.n)
		case f.isNumbers(3):
			out.Except, err = f.numbers(out.Except)
		case f.isNumbers(4):
			out.Only, err = f.numbers(out.Only)
		}
		if err != nil {
			return err
		}
	}
}

func decodeGap(body []byte, h RouterHandler) error {
	var out Gap
	w, f := fields{rest: body}, field{}
	for {
		more, err := w.next(&f)
		if err != nil {
			return err
		}
		switch {
		case !more:
			if out.Stream == 0 || out.From < 0 || out.To < 0 {
				return malformed("gap: stream %d, from %d, to %d", out.Stream, out.From, out.To)
			}
			return h.Gap(out)
		case f.is(1, protowire.VarintType):
			out.Stream = f.n
		case f.is(2, protowire.VarintType):
			out.From = int64(f.n)
		case f.is(3, protowire.VarintType):
			out.To = int64(f.n)
		case f.is(4, protowire.VarintType):
			out.Reason = GapReason(f.enum())
		}
	}
}

func decodeClosed(body []byte, h RouterHandler) error {
	var out Closed
	w, f := fields{rest: body}, field{}
	for {
		more, err := w.next(&f)
		switch {
		case err != nil:
		case !more:
			if out.Stream == 0 {
				return malformed("closed: stream 0")
			}
			return h.Closed(out)
		case f.is(1, protowire.VarintType):
			out.Stream = f.n
		case f.is(2, protowire.VarintType):
			out.Reason = ClosedReason(f.enum())
		case f.is(3, protowire.BytesType):
			out.Detail, err = f.text()
		}
		if err != nil {
			return err
		}
	}
}

func decodeDraining(body []byte, h RouterHandler) error {
	w, f := fields{rest: body}, field{}
	for {
		more, err := w.next(&f)
		if err != nil {
			return err
		}
		if !more {
			return h.Draining()
		}
	}
}
