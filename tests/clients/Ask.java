import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** Asks once with Java's client as it comes: it offers an upgrade to HTTP/2 with its first request. */
class Ask {
  public static void main(String[] arguments) throws Exception {
    HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0]))
        .header("content-type", "application/json")
        .header("authorization", arguments[1])
        .POST(HttpRequest.BodyPublishers.ofString(arguments[2]))
        .build();
    HttpResponse<String> response = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
    System.out.println(response.body());
  }
}
