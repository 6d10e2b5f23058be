/* The driver of Paho C, in its synchronous form: the library does something while it is called. */

#include <MQTTClient.h>
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWER_MS = 20000, KEEP_ALIVE_S = 60, SESSION_EXPIRY_S = 3600, ALIAS = 1, MAX_CLIENTS = 16 };

typedef struct {
    char name[64];
    MQTTClient mqtt;
    bool v5;
} Client;

static Client clients[MAX_CLIENTS];

/* What is told if the command cannot be done. */
static char error[512];

#define CHECK(call)                                                                       \
    do {                                                                                  \
        int rc_ = (call);                                                                 \
        if (rc_ != MQTTCLIENT_SUCCESS) return failed(#call, rc_);                         \
    } while (0)

static cJSON *failed(const char *what, int rc) {
    const char *text = MQTTClient_strerror(rc);
    snprintf(error, sizeof error, "%s: %d %s", what, rc, text ? text : "");
    return NULL;
}

static const char *text_of(const cJSON *command, const char *key) {
    return cJSON_GetStringValue(cJSON_GetObjectItem(command, key));
}

static int int_of(const cJSON *command, const char *key) {
    return (int)cJSON_GetNumberValue(cJSON_GetObjectItem(command, key));
}

static bool is(const cJSON *command, const char *key) {
    return cJSON_IsTrue(cJSON_GetObjectItem(command, key));
}

/* The bytes of a hexadecimal text; the caller frees them. */
static char *from_hex(const char *hex, int *len) {
    *len = (int)(strlen(hex) / 2);
    char *bytes = malloc((size_t)*len + 1);
    for (int i = 0; i < *len; i++) {
        unsigned byte;
        sscanf(hex + 2 * i, "%2x", &byte);
        bytes[i] = (char)byte;
    }
    return bytes;
}

static void add_hex(cJSON *object, const char *key, const void *bytes, int len) {
    char *hex = malloc(2 * (size_t)len + 1);
    for (int i = 0; i < len; i++) sprintf(hex + 2 * i, "%02x", ((const unsigned char *)bytes)[i]);
    hex[2 * len] = 0;
    cJSON_AddStringToObject(object, key, hex);
    free(hex);
}

static MQTTLenString len_string(const char *text) {
    return (MQTTLenString){(int)strlen(text), (char *)text};
}

static void add_int(MQTTProperties *properties, enum MQTTPropertyCodes code, unsigned value) {
    MQTTProperty property = {.identifier = code};
    if (code == MQTTPROPERTY_CODE_TOPIC_ALIAS) property.value.integer2 = (unsigned short)value;
    else property.value.integer4 = value;
    MQTTProperties_add(properties, &property);
}

static void add_text(MQTTProperties *properties, enum MQTTPropertyCodes code, const char *text) {
    MQTTProperty property = {.identifier = code};
    property.value.data = len_string(text);
    MQTTProperties_add(properties, &property);
}

static Client *client_named(const char *name) {
    for (int i = 0; i < MAX_CLIENTS; i++) {
        if (strcmp(clients[i].name, name) == 0) return &clients[i];
    }
    return NULL;
}

/* `mqtt:` and `mqtts:` are `tcp:` and `ssl:` to it. */
static void server_uri(const char *url, char *uri, size_t size) {
    if (strncmp(url, "mqtts:", 6) == 0) snprintf(uri, size, "ssl:%s", url + 6);
    else if (strncmp(url, "mqtt:", 5) == 0) snprintf(uri, size, "tcp:%s", url + 5);
    else snprintf(uri, size, "%s", url);
}

static cJSON *connect_client(const cJSON *command) {
    Client *client = client_named("");
    if (client == NULL) {
        snprintf(error, sizeof error, "more than %d clients", MAX_CLIENTS);
        return NULL;
    }
    char uri[128];
    server_uri(text_of(command, "url"), uri, sizeof uri);
    bool v5 = strcmp(text_of(command, "version"), "5.0") == 0, clean = is(command, "clean");
    client->v5 = v5;

    MQTTClient_createOptions create = MQTTClient_createOptions_initializer;
    create.MQTTVersion = v5 ? MQTTVERSION_5 : MQTTVERSION_3_1_1;
    CHECK(MQTTClient_createWithOptions(&client->mqtt, uri, text_of(command, "id"),
                                       MQTTCLIENT_PERSISTENCE_NONE, NULL, &create));
    MQTTClient_setCommandTimeout(client->mqtt, ANSWER_MS);

    MQTTClient_connectOptions options = MQTTClient_connectOptions_initializer;
    MQTTClient_connectOptions options5 = MQTTClient_connectOptions_initializer5;
    if (v5) {
        options = options5;
        options.cleanstart = clean;
    } else {
        options.MQTTVersion = MQTTVERSION_3_1_1;
        options.cleansession = clean;
    }
    options.keepAliveInterval = KEEP_ALIVE_S;
    options.connectTimeout = ANSWER_MS / 1000;

    MQTTClient_SSLOptions ssl = MQTTClient_SSLOptions_initializer;
    ssl.trustStore = getenv("CA_FILE");
    ssl.verify = 1;
    if (strncmp(uri, "ssl:", 4) == 0 || strncmp(uri, "wss:", 4) == 0) options.ssl = &ssl;

    MQTTClient_willOptions will = MQTTClient_willOptions_initializer;
    const cJSON *wanted = cJSON_GetObjectItem(command, "will");
    char *payload = NULL;
    if (cJSON_IsObject(wanted)) {
        payload = from_hex(text_of(wanted, "payload"), &will.payload.len);
        will.payload.data = payload;
        will.topicName = text_of(wanted, "topic");
        will.qos = int_of(wanted, "qos");
        options.will = &will;
    }

    int rc;
    if (v5) {
        MQTTProperties properties = MQTTProperties_initializer;
        add_int(&properties, MQTTPROPERTY_CODE_SESSION_EXPIRY_INTERVAL, clean ? 0 : SESSION_EXPIRY_S);
        MQTTResponse response = MQTTClient_connect5(client->mqtt, &options, &properties, NULL);
        rc = response.reasonCode;
        MQTTResponse_free(response);
        MQTTProperties_free(&properties);
    } else {
        rc = MQTTClient_connect(client->mqtt, &options);
    }
    free(payload);
    CHECK(rc);
    snprintf(client->name, sizeof client->name, "%s", text_of(command, "client"));
    cJSON *answer = cJSON_CreateObject();
    /* It passes that on with MQTT 3.1.1 only. */
    if (v5) cJSON_AddNullToObject(answer, "session_present");
    else cJSON_AddBoolToObject(answer, "session_present", options.returned.sessionPresent);
    return answer;
}

static cJSON *subscribe(Client *client, const cJSON *command) {
    const char *topic = text_of(command, "topic");
    int qos = int_of(command, "qos"), granted = qos;
    if (client->v5) {
        MQTTProperties properties = MQTTProperties_initializer;
        const cJSON *identifier = cJSON_GetObjectItem(command, "identifier");
        if (cJSON_IsNumber(identifier)) {
            add_int(&properties, MQTTPROPERTY_CODE_SUBSCRIPTION_IDENTIFIER, (unsigned)identifier->valueint);
        }
        MQTTSubscribe_options options = MQTTSubscribe_options_initializer;
        MQTTResponse response = MQTTClient_subscribe5(client->mqtt, topic, qos, &options, &properties);
        granted = response.reasonCode;
        MQTTResponse_free(response);
        MQTTProperties_free(&properties);
    } else {
        /* It is a success only with the QoS that was asked for. */
        CHECK(MQTTClient_subscribe(client->mqtt, topic, qos));
    }
    cJSON *answer = cJSON_CreateObject();
    cJSON_AddNumberToObject(answer, "granted", granted);
    return answer;
}

static cJSON *publish_with(Client *client, const cJSON *command, const char *topic, MQTTProperties *properties) {
    MQTTClient_message message = MQTTClient_message_initializer;
    MQTTClient_deliveryToken token;
    message.payload = from_hex(text_of(command, "payload"), &message.payloadlen);
    message.qos = int_of(command, "qos");
    message.retained = is(command, "retain");
    int rc;
    if (client->v5) {
        message.properties = *properties;
        MQTTResponse response = MQTTClient_publishMessage5(client->mqtt, topic, &message, &token);
        rc = response.reasonCode;
        MQTTResponse_free(response);
    } else {
        rc = MQTTClient_publishMessage(client->mqtt, topic, &message, &token);
    }
    free(message.payload);
    CHECK(rc);
    CHECK(MQTTClient_waitForCompletion(client->mqtt, token, ANSWER_MS));
    return cJSON_CreateObject();
}

static cJSON *publish(Client *client, const cJSON *command) {
    MQTTProperties properties = MQTTProperties_initializer;
    const cJSON *wanted = cJSON_GetObjectItem(command, "properties"), *pair;
    if (cJSON_IsObject(wanted)) {
        cJSON_ArrayForEach(pair, cJSON_GetObjectItem(wanted, "user")) {
            MQTTProperty property = {.identifier = MQTTPROPERTY_CODE_USER_PROPERTY};
            property.value.data = len_string(pair->string);
            property.value.value = len_string(pair->valuestring);
            MQTTProperties_add(&properties, &property);
        }
        add_text(&properties, MQTTPROPERTY_CODE_CONTENT_TYPE, text_of(wanted, "content_type"));
        add_text(&properties, MQTTPROPERTY_CODE_RESPONSE_TOPIC, text_of(wanted, "response_topic"));
        add_int(&properties, MQTTPROPERTY_CODE_MESSAGE_EXPIRY_INTERVAL,
                (unsigned)int_of(wanted, "message_expiry_s"));
        MQTTProperty correlation = {.identifier = MQTTPROPERTY_CODE_CORRELATION_DATA};
        int len;
        char *bytes = from_hex(text_of(wanted, "correlation_data"), &len);
        correlation.value.data = (MQTTLenString){len, bytes};
        MQTTProperties_add(&properties, &correlation);
        free(bytes);
    }
    cJSON *answer = publish_with(client, command, text_of(command, "topic"), &properties);
    MQTTProperties_free(&properties);
    return answer;
}

static cJSON *publish_alias(Client *client, const cJSON *command) {
    MQTTProperties properties = MQTTProperties_initializer;
    add_int(&properties, MQTTPROPERTY_CODE_TOPIC_ALIAS, ALIAS);
    cJSON *answer = publish_with(client, command, text_of(command, "topic"), &properties);
    if (answer != NULL) {
        cJSON_Delete(answer);
        answer = publish_with(client, command, "", &properties);
    }
    MQTTProperties_free(&properties);
    return answer;
}

static void add_len_string(cJSON *object, const char *key, MQTTLenString text) {
    char *copy = strndup(text.data, (size_t)text.len);
    cJSON_AddStringToObject(object, key, copy);
    free(copy);
}

static cJSON *properties_of(const MQTTClient_message *message) {
    static const char *const all[] = {"content_type",     "response_topic", "correlation_data",
                                      "message_expiry_s", "identifiers"};
    cJSON *told = cJSON_CreateObject(), *user = cJSON_AddObjectToObject(told, "user");
    for (int i = 0; i < message->properties.count; i++) {
        const MQTTProperty *p = &message->properties.array[i];
        switch (p->identifier) {
        case MQTTPROPERTY_CODE_USER_PROPERTY: {
            char *key = strndup(p->value.data.data, (size_t)p->value.data.len);
            add_len_string(user, key, p->value.value);
            free(key);
            break;
        }
        case MQTTPROPERTY_CODE_CONTENT_TYPE: add_len_string(told, all[0], p->value.data); break;
        case MQTTPROPERTY_CODE_RESPONSE_TOPIC: add_len_string(told, all[1], p->value.data); break;
        case MQTTPROPERTY_CODE_CORRELATION_DATA:
            add_hex(told, all[2], p->value.data.data, p->value.data.len);
            break;
        case MQTTPROPERTY_CODE_MESSAGE_EXPIRY_INTERVAL:
            cJSON_AddNumberToObject(told, all[3], p->value.integer4);
            break;
        case MQTTPROPERTY_CODE_SUBSCRIPTION_IDENTIFIER: {
            cJSON *identifiers = cJSON_GetObjectItem(told, all[4]);
            if (identifiers == NULL) identifiers = cJSON_AddArrayToObject(told, all[4]);
            cJSON_AddItemToArray(identifiers, cJSON_CreateNumber(p->value.integer4));
            break;
        }
        default: break;
        }
    }
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (!cJSON_HasObjectItem(told, all[i])) cJSON_AddNullToObject(told, all[i]);
    }
    return told;
}

static cJSON *next(Client *client) {
    char *topic = NULL;
    int len = 0;
    MQTTClient_message *message = NULL;
    int rc = MQTTClient_receive(client->mqtt, &topic, &len, &message, ANSWER_MS);
    if (message == NULL) return failed("no message", rc);
    cJSON *told = cJSON_CreateObject();
    add_len_string(told, "topic", (MQTTLenString){len, topic});
    add_hex(told, "payload", message->payload, message->payloadlen);
    cJSON_AddNumberToObject(told, "qos", message->qos);
    cJSON_AddBoolToObject(told, "retain", message->retained);
    cJSON_AddItemToObject(told, "properties", properties_of(message));
    MQTTClient_freeMessage(&message);
    MQTTClient_free(topic);
    return told;
}

static cJSON *disconnect(Client *client) {
    int rc = client->v5 ? MQTTClient_disconnect5(client->mqtt, ANSWER_MS, MQTTREASONCODE_SUCCESS, NULL)
                        : MQTTClient_disconnect(client->mqtt, ANSWER_MS);
    MQTTClient_destroy(&client->mqtt);
    client->name[0] = 0;
    CHECK(rc);
    return cJSON_CreateObject();
}

static cJSON *done(const cJSON *command) {
    const char *what = text_of(command, "do");
    if (strcmp(what, "connect") == 0) return connect_client(command);
    Client *client = client_named(text_of(command, "client"));
    if (client == NULL) snprintf(error, sizeof error, "no such client");
    else if (strcmp(what, "subscribe") == 0) return subscribe(client, command);
    else if (strcmp(what, "publish") == 0) return publish(client, command);
    else if (strcmp(what, "publish_alias") == 0) return publish_alias(client, command);
    else if (strcmp(what, "next") == 0) return next(client);
    else if (strcmp(what, "disconnect") == 0) return disconnect(client);
    else snprintf(error, sizeof error, "unknown command");
    return NULL;
}

int main(void) {
    MQTTClient_init_options init = MQTTClient_init_options_initializer;
    init.do_openssl_init = 1;
    MQTTClient_global_init(&init);
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, stdin) > 0) {
        cJSON *command = cJSON_Parse(line), *answer = cJSON_CreateObject();
        cJSON *ok = command ? done(command) : failed("not JSON", 0);
        if (ok) cJSON_AddItemToObject(answer, "ok", ok);
        else cJSON_AddStringToObject(answer, "error", error);
        char *text = cJSON_PrintUnformatted(answer);
        puts(text);
        fflush(stdout);
        free(text);
        cJSON_Delete(answer);
        cJSON_Delete(command);
    }
    free(line);
    return 0;
}
