import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.stream.Collectors;

import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.utils.AppInfoParser;

/**
 * Reads keys in hexadecimal from standard input and prints the partitions that the Java producer gives them: it calls
 * the method that KafkaProducer itself calls for a record with a key. The arguments are partition counts.
 */
public final class Vectors {
    public static void main(String[] args) throws Exception {
        int[] counts = Arrays.stream(args).mapToInt(Integer::parseInt).toArray();
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.US_ASCII);
        out.print("# kafka-clients " + AppInfoParser.getVersion()
                + ", the Java producer's default; first line: partition counts, then one line a key of keys.txt\n");
        out.print(String.join("\t", args) + "\n");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            if (line.startsWith("#")) {
                continue;
            }
            byte[] key = HexFormat.of().parseHex(line);
            out.print(Arrays.stream(counts)
                    .mapToObj(n -> Integer.toString(BuiltInPartitioner.partitionForKey(key, n)))
                    .collect(Collectors.joining("\t")) + "\n");
        }
        out.flush();
    }
}
