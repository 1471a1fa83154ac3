// Package partitioner computes which partition a record key belongs to, exactly as the common Kafka producers do.
//
// Pointsman must agree with the producers of a topic: a client of key k is served from the one partition this
// package names, so a producer with another partitioner starves it. testdata holds what the real clients
// answered for thousands of keys (integration/vectors makes it).
package partitioner

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
)

// Names of the partitioners, and the producers that use each by default.
const (
	// Murmur2 is the Java client's default, and that of Kafka Streams, Connect, franz-go and kafka-python;
	// librdkafka's murmur2 and murmur2_random.
	Murmur2 = "murmur2"
	// CRC32 is librdkafka's default, consistent_random: kcat, confluent-kafka for Python, Go and .NET. It
	// spreads *empty* keys at random, so an empty key cannot be served from one partition there.
	CRC32 = "crc32"
	// FNV1a is sarama's default.
	FNV1a = "fnv1a"
	// Default is what New takes for "".
	Default = Murmur2
)

// Partitioner is a pure function with a name. Every implementation is safe for concurrent use and allocates
// nothing.
type Partitioner interface {
	// Name is one of Names.
	Name() string
	// Partition gives the partition of key among partitions 0 to partitions-1, and -1 when partitions is less
	// than 1. A nil key counts as empty; producers put records without a key anywhere.
	Partition(key []byte, partitions int32) int32
}

// Names lists what New knows, the default first.
func Names() []string { return []string{Murmur2, CRC32, FNV1a} }

// New gives the partitioner of that name; "" means Default.
func New(name string) (Partitioner, error) {
	switch name {
	case Murmur2, "":
		return murmur2{}, nil
	case CRC32:
		return crc{}, nil
	case FNV1a:
		return fnv1a{}, nil
	}
	return nil, fmt.Errorf("partitioner %q is not known; there are %s", name, strings.Join(Names(), ", "))
}

type murmur2 struct{}

func (murmur2) Name() string { return Murmur2 }

// Partition clears the sign bit, as Java's Utils.toPositive does; it does not negate.
func (murmur2) Partition(key []byte, partitions int32) int32 {
	if partitions < 1 {
		return -1
	}
	return int32(murmur2Sum(key)&0x7fffffff) % partitions
}

// murmur2Sum is org.apache.kafka.common.utils.Utils.murmur2: MurmurHash2 with Kafka's seed.
func murmur2Sum(key []byte) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
	)
	h := seed ^ uint32(len(key))
	for len(key) >= 4 {
		k := binary.LittleEndian.Uint32(key) * m
		k ^= k >> 24
		h = h*m ^ k*m
		key = key[4:]
	}
	switch len(key) {
	case 3:
		h ^= uint32(key[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(key[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(key[0])) * m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}

type crc struct{}

func (crc) Name() string { return CRC32 }

// Partition takes the checksum as unsigned, as librdkafka does.
func (crc) Partition(key []byte, partitions int32) int32 {
	if partitions < 1 {
		return -1
	}
	return int32(crc32.ChecksumIEEE(key) % uint32(partitions))
}

type fnv1a struct{}

func (fnv1a) Name() string { return FNV1a }

// Partition takes the remainder of the *signed* hash and then its absolute value, as sarama does. The other
// order would differ for the one hash that has no positive counterpart.
func (fnv1a) Partition(key []byte, partitions int32) int32 {
	if partitions < 1 {
		return -1
	}
	h := uint32(2166136261)
	for _, c := range key {
		h = (h ^ uint32(c)) * 16777619
	}
	p := int32(h) % partitions
	if p < 0 {
		p = -p
	}
	return p
}
