package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"

	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

// View is a topic with a given id.
type View struct {
	c  *Client
	id [16]byte
}

// Bounds asks the partition's leader for its bounds.
func (v View) Bounds(ctx context.Context, partition int32) (source.Bounds, error) {
	var b source.Bounds
	// In this order, so that Start <= Stable <= High whatever happens in between.
	for _, q := range []struct {
		dst       *int64
		time      int64
		isolation sarama.IsolationLevel
	}{
		{&b.Start, sarama.OffsetOldest, sarama.ReadUncommitted},
		{&b.Stable, sarama.OffsetNewest, sarama.ReadCommitted},
		{&b.High, sarama.OffsetNewest, sarama.ReadUncommitted},
	} {
		o, err := v.listOffset(ctx, partition, q.time, q.isolation)
		if err != nil {
			return source.Bounds{}, fmt.Errorf("find bounds of partition %d: %w", partition, err)
		}
		*q.dst = o
	}
	return b, nil
}

// OffsetAt finds the first committed offset whose record is not older than t (milliseconds since the Unix
// epoch); ok is false when there is none.
func (v View) OffsetAt(ctx context.Context, partition int32, t int64) (offset int64, ok bool, err error) {
	// Negative times are Kafka's special names.
	o, err := v.listOffset(ctx, partition, max(t, 0), sarama.ReadCommitted)
	if err != nil {
		return 0, false, fmt.Errorf("find time in partition %d: %w", partition, err)
	}
	return o, o >= 0, nil
}

// Scan reads one batch that begins at from, on connections of its own. At the end of the log, the batch is
// empty. An offset that the log does not have gives an *OutOfRangeError.
func (v View) Scan(ctx context.Context, partition int32, from int64, maxBytes int32) (*source.Batch, error) {
	for {
		var reply soloReply
		err := v.ask(ctx, v.c.scans, partition, func(cn *conn, epoch int32) (sarama.KError, error) {
			var err error
			reply, err = v.c.fetchAlone(cn, ask{partition: partition, from: from, maxBytes: maxBytes, epoch: epoch})
			return reply.refused(), err
		})
		switch {
		case errors.Is(err, sarama.ErrOffsetOutOfRange):
			b, err := v.Bounds(ctx, partition)
			if err != nil {
				return nil, err
			}
			return nil, &OutOfRangeError{Partition: partition, Offset: from, Bounds: b}
		case err != nil:
			return nil, fmt.Errorf("scan partition %d at %d: %w", partition, from, err)
		}
		a, err := reply.read(from)
		if err != nil {
			return nil, fmt.Errorf("scan partition %d at %d: %w", partition, from, err)
		}
		if a.batch.Next == from && a.cut {
			if maxBytes, err = grow(maxBytes, a.need); err != nil {
				return nil, fmt.Errorf("scan partition %d at %d: %w", partition, from, err)
			}
			continue
		}
		return &a.batch, nil
	}
}

// soloReply is what a fetch of one partition alone brought.
type soloReply struct {
	block *sarama.FetchResponseBlock // nil when the broker throttled
	took  time.Duration
}

// fetchAlone fetches one partition alone, without waiting for records to come.
func (c *Client) fetchAlone(cn *conn, q ask) (soloReply, error) {
	at := time.Now()
	resp, err := cn.fetchSolo(newFetch(c.cfg.Topic, 0, max(q.maxBytes, c.cfg.FetchTotal), q))
	if err != nil {
		return soloReply{}, err
	}
	return soloReply{block: resp.GetBlock(c.cfg.Topic, q.partition), took: time.Since(at)}, nil
}

func (s soloReply) refused() sarama.KError {
	if s.block == nil {
		return sarama.ErrRequestTimedOut
	}
	return s.block.Err
}

// read is readBlock, plus what silence means in a solo fetch: the broker always sends the first batch at or
// after the offset, whole, so an answer without one proves that there is none below the last stable offset.
func (s soloReply) read(from int64) (answer, error) {
	a, err := readBlock(s.block, from)
	if err == nil && a.silent && s.took < soloTrust {
		a.batch.Next = max(a.batch.Next, a.batch.Bounds.Stable)
	}
	return a, err
}

// errUndecodable is a batch that stays cut however much is asked for.
var errUndecodable = errors.New("batch is larger than 100 MiB or cannot be decoded")

// grow is the fetch size to try after a batch was cut; need is the batch's size if the answer told it.
func grow(size, need int32) (int32, error) {
	limit := sarama.MaxResponseSize
	if size >= limit {
		return size, errUndecodable
	}
	return min(limit, max(need, min(size, limit/2)*2)), nil
}

// Ends asks where the first n partitions end, committed or not. Each leader is asked once for all of its own.
func (v View) Ends(ctx context.Context, n int32) ([]int64, error) {
	ends := make([]int64, n)
	missing := make([]int32, 0, n)
	for p := range n {
		missing = append(missing, p)
	}
	var wait backoff
	t := v.c.meta.current()
	for try := 1; ; try++ {
		if t.id != v.id {
			return nil, ErrTopicChanged
		}
		var err error
		if missing, err = v.endsOf(ctx, t, missing, ends); len(missing) == 0 {
			return ends, nil
		}
		if try == askTries || try > 1 && !wait.sleep(ctx) {
			return nil, fmt.Errorf("find the ends of %d partitions: %w", len(missing), err)
		}
		if t, err = v.c.meta.refresh(ctx, time.Now()); err != nil {
			return nil, err
		}
	}
}

// endsOf asks the leaders of partitions and returns those that were not answered for, and why the last one was not.
func (v View) endsOf(ctx context.Context, t *topology, partitions []int32, ends []int64) (missing []int32, err error) {
	topic := v.c.cfg.Topic
	byAddr := make(map[string][]int32)
	for _, p := range partitions {
		l, lost := t.leader(p)
		if lost != nil {
			missing, err = append(missing, p), lost
			continue
		}
		byAddr[l.addr] = append(byAddr[l.addr], p)
	}
	for addr, asked := range byAddr {
		var resp *sarama.OffsetResponse
		failed := v.c.offsets.do(ctx, addr, func(cn *conn) (err error) {
			r := sarama.NewOffsetRequest(protocolVersion)
			for _, p := range asked {
				r.AddBlock(topic, p, sarama.OffsetNewest, 1)
			}
			resp, err = cn.broker.GetAvailableOffsets(r)
			return err
		})
		for _, p := range asked {
			var block *sarama.OffsetResponseBlock
			if failed == nil {
				block = resp.GetBlock(topic, p)
			}
			switch {
			case failed != nil:
				missing, err = append(missing, p), failed
			case block == nil:
				missing, err = append(missing, p), sarama.ErrIncompleteResponse
			case block.Err != sarama.ErrNoError:
				missing, err = append(missing, p), block.Err
			default:
				ends[p] = block.Offset
			}
		}
	}
	return missing, err
}

func (v View) listOffset(ctx context.Context, partition int32, at int64, isolation sarama.IsolationLevel) (int64, error) {
	topic := v.c.cfg.Topic
	var offset int64
	err := v.ask(ctx, v.c.offsets, partition, func(cn *conn, _ int32) (sarama.KError, error) {
		r := sarama.NewOffsetRequest(protocolVersion)
		r.IsolationLevel = isolation
		r.AddBlock(topic, partition, at, 1)
		resp, err := cn.broker.GetAvailableOffsets(r)
		if err != nil {
			return 0, err
		}
		block := resp.GetBlock(topic, partition)
		if block == nil {
			return 0, sarama.ErrIncompleteResponse
		}
		offset = block.Offset
		return block.Err, nil
	})
	return offset, err
}

// askTries bounds how often one question follows a moving leader before its asker hears of it.
const askTries = 4

// ask puts a question to the partition's leader, and again to the next leader while the refusal may pass.
func (v View) ask(ctx context.Context, p *pool, partition int32, f func(cn *conn, epoch int32) (sarama.KError, error)) error {
	t := v.c.meta.current()
	var wait backoff
	for try := 1; ; try++ {
		if t.id != v.id {
			return ErrTopicChanged
		}
		l, err := t.leader(partition)
		if err == nil {
			var refused sarama.KError
			err = p.do(ctx, l.addr, func(cn *conn) (err error) {
				refused, err = f(cn, l.epoch)
				return err
			})
			if err == nil && refused == sarama.ErrNoError {
				return nil
			}
			if err == nil {
				err = refused
				if !isRetriable(refused) {
					return err
				}
			}
		}
		if try == askTries || isDecodingError(err) {
			return err
		}
		if try > 1 && !wait.sleep(ctx) {
			return context.Cause(ctx)
		}
		if t, err = v.c.meta.refresh(ctx, time.Now()); err != nil {
			return err
		}
	}
}
