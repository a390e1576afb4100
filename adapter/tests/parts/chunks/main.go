// Encodes samples as Prometheus does: reads lines of JSON, {"samples": [[1763697600000, "7ff0000000000002"]]}
// with the bits of each value in hexadecimal, and writes them with the bytes of their XOR chunk.
//
// Needs the module github.com/prometheus/prometheus; the committed vectors.jsonl are from v0.315.0:
// go run main.go < vectors.jsonl > new.jsonl
package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"log"
	"math"
	"os"
	"strconv"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

type vector struct {
	Samples [][2]any `json:"samples"`
	Chunk   string   `json:"chunk"`
}

func encode(samples [][2]any) []byte {
	chunk := chunkenc.NewXORChunk()
	appender, err := chunk.Appender()
	if err != nil {
		log.Fatal(err)
	}
	for _, sample := range samples {
		timestamp, err := strconv.ParseInt(sample[0].(json.Number).String(), 10, 64)
		if err != nil {
			log.Fatal(err)
		}
		bits, err := strconv.ParseUint(sample[1].(string), 16, 64)
		if err != nil {
			log.Fatal(err)
		}
		appender.Append(0, timestamp, math.Float64frombits(bits))
	}
	return chunk.Bytes()
}

func main() {
	lines := bufio.NewReader(os.Stdin)
	in, out := json.NewDecoder(lines), json.NewEncoder(os.Stdout)
	in.UseNumber()
	for in.More() {
		var v vector
		if err := in.Decode(&v); err != nil {
			log.Fatal(err)
		}
		v.Chunk = hex.EncodeToString(encode(v.Samples))
		if err := out.Encode(v); err != nil {
			log.Fatal(err)
		}
	}
}
