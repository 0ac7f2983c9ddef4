import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.StringReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;

/**
 * Reads texts with java.util.Properties and writes the pairs it found, duplicates included.
 *
 * Standard input: per text its length in bytes (int, big-endian) and its UTF-8 bytes; a negative
 * length ends. Standard output: per text the number of strings, or -1 where Java throws, then each
 * string in the same form, key and value by turns.
 */
public class LoadProperties {
    public static void main(String[] arguments) throws Exception {
        DataInputStream in = new DataInputStream(new java.io.BufferedInputStream(System.in));
        DataOutputStream out =
                new DataOutputStream(new java.io.BufferedOutputStream(System.out));
        for (int length = in.readInt(); length >= 0; length = in.readInt()) {
            String text = new String(in.readNBytes(length), StandardCharsets.UTF_8);
            List<String> strings = new ArrayList<>();
            Properties properties = new Properties() {
                @Override
                public synchronized Object put(Object key, Object value) {
                    strings.add((String) key);
                    strings.add((String) value);
                    return null;
                }
            };
            try {
                properties.load(new StringReader(text));
            } catch (IllegalArgumentException malformed) {
                out.writeInt(-1);
                continue;
            }
            out.writeInt(strings.size());
            for (String string : strings) {
                byte[] bytes = string.getBytes(StandardCharsets.UTF_8);
                out.writeInt(bytes.length);
                out.write(bytes);
            }
        }
        out.flush();
    }
}
